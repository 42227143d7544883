// Package m2mauth protects HTTP APIs with OAuth 2.0 access tokens. A request reaches
// a handler only if it carries a valid access token (JWT) from your issuer, for your
// API, with the scopes that the route requires. It is built for machine-to-machine apps
// of a Logto server, and works with any issuer of RFC 9068 access tokens.
//
//	guard, err := m2mauth.New(m2mauth.Config{
//		Issuer:   "https://your.logto.endpoint/oidc",
//		Audience: "https://shopping.api",
//	})
//	…
//	mux.Handle("GET /products", guard.Require("read:products")(http.HandlerFunc(list)))
//
// A route that no guard wraps is open. With more than a handful of routes, use
// [Guard.Routes]: a route that is missing from its table lets nobody through. In a
// handler, [FromContext] returns the [Claims] of the token. For more than scopes, pass a
// [Rule] to [Guard.RequireRule].
//
// Nothing to start or close: [New] does no I/O, and an idle [Guard] runs nothing. Make
// one Guard per API when the program starts, and share it.
//
// # Responses
//
// Rejected requests are answered per RFC 6750 §3: 400 for malformed credentials, 401
// for a missing or invalid token, and 403 for a valid token that lacks permission. If
// the guard cannot check the token, the status is 429 or 503 with Retry-After, since
// the token may be valid. Responses contain nothing of tokens, keys or internal errors.
// The log says what was expected and what came.
//
// # Checks
//
// A guard accepts one Bearer token, in the Authorization header (RFC 6750 §2.1). It
// parses the token strictly and checks alg and typ, then the claims, then the signature
// with a key of the issuer, and last the route's rule (RFC 7515, 7519, 8725, 9068).
// Verified tokens are cached, but expiry, key and rule are checked for each request.
//
// Keys are fetched when a request needs them, cached for ten minutes by default, and
// refreshed in the background. If the issuer fails, they are used for an hour longer.
// An unknown key ID causes a fetch at once, at a limited rate.
//
// Package m2mauthtest provides an issuer for tests.
package m2mauth
