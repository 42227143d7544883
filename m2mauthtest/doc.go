// Package m2mauthtest helps to test APIs that m2mauth protects.
//
// Its [Issuer] takes the place of a Logto server: it publishes a discovery
// document and a key set, issues access tokens to machine-to-machine apps at a
// token endpoint, signs any token, good or bad, that a test wants, and rotates
// its keys. By default it lives in memory, where nothing listens:
//
//	issuer := m2mauthtest.NewIssuer()
//	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
//	…
//	req.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:products"))
//
// Three ways in, from the least to the most that is real:
//
//   - [Claims] gives the claims of an app to the unit test of a handler, put
//     into the request's context with [m2mauth.NewContext]. No token is involved.
//   - [Issuer.Config] and [Issuer.Token] test handlers behind a guard.
//   - [Issuer.AddResource], [Issuer.AddRole] and [Issuer.AddApp] set up what an
//     administrator would, and apps fetch their tokens at [Issuer.TokenURL].
//     [Issuer.AddOrganization], [Issuer.AddOrganizationRole] and
//     [Issuer.AddToOrganization] do so for tokens of organizations.
//
// [Issuer.Intercept] makes the issuer fail in any way, and [Issuer.Fetches]
// tells how often it was asked. All of it works inside a bubble of
// [testing/synctest], where a test can let hours pass in no time. With
// GODEBUG=fips140=on or only, one goroutine runs as long as the process does: it makes
// keys and signatures, since Go's random generator of that mode cannot be seeded
// inside a bubble.
//
// The package signs with the standard library alone, so it shares no code with
// what it tests. What it answers is modelled on recordings of a Logto 1.42
// server. It knows no users.
//
// Authors of adapters to web frameworks find their test suite in package
// [github.com/m2mauth/m2mauth/m2mauthtest/adaptertest].
package m2mauthtest
