module github.com/fairlead-io/fairlead/conformance/grpc

go 1.26.0

replace github.com/fairlead-io/fairlead/conformance/program => ../program

require (
	github.com/fairlead-io/fairlead/conformance/program v0.0.0-00010101000000-000000000000
	google.golang.org/grpc v1.84.0
)

require (
	golang.org/x/net v0.57.0 // indirect
	golang.org/x/sys v0.47.0 // indirect
	golang.org/x/text v0.40.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260706201446-f0a921348800 // indirect
	google.golang.org/protobuf v1.36.11 // indirect
)
