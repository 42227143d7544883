// Package properties holds state machines that drive a guard at random, through
// its public API, beside a model that says which answers are right, and one that
// drives internal/refetch. It is a module of its own, so that nobody who uses the
// guard gets what generates the sequences. Every case of a guard runs in a bubble of
// testing/synctest.
//
//	go test ./internal/test/properties                       # a hundred sequences each
//	go test ./internal/test/properties -rapid.checks=100000  # many more
package properties
