module github.com/fairlead-io/fairlead/conformance/program

go 1.26.0
