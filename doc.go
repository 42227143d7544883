// Package m2mauth protects HTTP APIs with OAuth 2.0 access tokens: it lets a
// request through to a handler only if it carries a JWT of the API's issuer that
// is valid, is meant for this API, and holds the scopes that the route requires.
// It is made for machine-to-machine applications of a Logto server, and works
// with any issuer of RFC 9068 access tokens.
//
//	guard, err := m2mauth.New(m2mauth.Config{
//		Issuer:   "https://your.logto.endpoint/oidc",
//		Audience: "https://shopping.api",
//	})
//	…
//	mux.Handle("GET /products", guard.Require("read:products")(http.HandlerFunc(list)))
//
// # A request's way
//
// A [Guard] takes the one Bearer token of the Authorization field (RFC 6750
// §2.1), reads it strictly (RFC 7515, RFC 8259), and checks, in this order: the
// header's alg and typ (RFC 8725, RFC 9068), the claims iss, aud, exp, nbf, iat,
// sub, client_id and jti (RFC 7519, RFC 9068 §4), the signature, by a key of the
// issuer's published set (RFC 7517), and what the route's [Rule] demands. The
// handler finds the token's [Claims] with [FromContext].
//
// What is refused is answered as RFC 6750 §3 says: 400 for malformed
// credentials, 401 for a missing or a bad token, 403 for a good token that may
// not do this, and 503 if the issuer's keys cannot be had, since the token may
// be fine. Nothing of a token, key or internal error is in the answer.
//
// # Keys
//
// Keys are found by OpenID Connect discovery, or at Config.JWKSURL, are fetched
// when a request needs them, kept for ten minutes, refreshed ahead in the
// background, and serve for an hour more if the issuer fails. A token with a
// key ID that is not known has them fetched at once, at most twice a minute if
// such IDs are made up. There is nothing to start and nothing to close.
//
// # Speed
//
// Verified tokens are remembered, so that a token costs its signature once; its
// expiry, its key and the route's rule are checked at each use. New tokens are
// verified on half of the cores, and wait their turn by source: 429 or 503 tell a
// caller that there is no room.
//
// # Tests
//
// Package m2mauthtest has an issuer for tests of APIs that a Guard protects.
package m2mauth
