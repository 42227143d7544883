package main

import "strings"

// reserveBytes is how much more garbage there may be than Go's runtime lets be by itself.
const reserveBytes = 32 << 20

// newReserve returns memory that nobody uses, to be kept while the gateway serves. It makes
// the garbage collector run less. What a gateway keeps is a few MiB, and by itself the runtime
// collects whenever there is as much again: under load all the time, which costs a quarter of
// the throughput, and known tokens wait for it in a flood of forged ones. The reserve counts as
// kept; since nothing is written there, the system gives no memory for it. GOGC=400 does the
// same for a gateway that keeps little, but needs hundreds of MiB for one that keeps many
// tokens. Where GOGC or GOMEMLIMIT is set, that is what holds.
func newReserve(environ []string) []byte {
	for _, variable := range environ {
		if name, value, _ := strings.Cut(variable, "="); value != "" && (name == "GOGC" || name == "GOMEMLIMIT") {
			return nil
		}
	}
	return make([]byte, reserveBytes)
}
