package shopv1

// It needs protoc. The plugins are those of the versions that examples/go.mod names.
//
//go:generate sh -c "protoc --plugin=$(go tool -n protoc-gen-go) --plugin=$(go tool -n protoc-gen-connect-go) --go_out=. --go_opt=paths=source_relative --connect-go_out=. --connect-go_opt=paths=source_relative,simple shop.proto"
