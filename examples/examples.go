// Package examples holds the YAML that `fairlead demo` serves. The same files can be applied to a cluster.
package examples

import "embed"

// Demo is the folder demo: a shop behind an Ingress and an API behind a Gateway.
//
//go:embed demo/*.yaml
var Demo embed.FS
