// Package acme tests Fairlead's certificates against a real authority: Pebble, built from its Go module, with the faults switched on that it is there to
// provoke. It is a module of its own, so that what only tests need is not among the product's dependencies.
package acme
