//go:build !unix

package proxy

// maxFiles is how many files the process may have open; 0 if that is not known.
func maxFiles() uint64 { return 0 }
