// Package shoppb is the code generated from shop.proto. To make it anew, with
// protoc (Debian: protobuf-compiler) at hand:
//
//	go generate ./examples/grpc/shoppb
package shoppb

//go:generate env GOBIN=${PWD}/.bin go install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.11
//go:generate env GOBIN=${PWD}/.bin go install google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2
//go:generate protoc --plugin=.bin/protoc-gen-go --plugin=.bin/protoc-gen-go-grpc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative shop.proto
//go:generate rm -r .bin
