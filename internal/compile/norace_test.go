//go:build !race

package compile

// underRace says that the race detector is at work, which makes everything some ten times slower.
const underRace = false
