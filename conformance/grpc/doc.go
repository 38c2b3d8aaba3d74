// Package grpc tests Fairlead with what gRPC's own library says and hears: a client and a server of google.golang.org/grpc, with the built program between them. It is
// a module of its own, so that what only tests need is not among the product's dependencies.
package grpc
