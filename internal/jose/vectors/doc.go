// Package vectors runs published test vectors through internal/jose: those of
// Project Wycheproof, and the examples of RFC 7515, 7517, 7520 and 8037. It holds
// nothing but tests, in a module of its own since Wycheproof's is large and asks
// for a newer Go than the core does. Each difference between what the vectors say
// and what jose does stands in a table, with the reason and the number of vectors.
package vectors
