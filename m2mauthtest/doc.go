// Package m2mauthtest helps you test APIs that m2mauth protects, without a server
// and without a network:
//
//	issuer := m2mauthtest.NewIssuer()
//	guard, err := m2mauth.New(issuer.Config("https://shopping.api"))
//	…
//	req.Header.Set("Authorization", "Bearer "+issuer.Token("https://shopping.api", "read:products"))
//
// An [Issuer] stands in for a Logto server. It publishes a discovery document and
// a key set, and signs access tokens. There are three ways to use the package:
//
//   - [Claims] returns the claims of an app for the unit test of a handler. Put them
//     into the request's context with [m2mauth.NewContext]. No token is involved.
//   - [Issuer.Config] and [Issuer.Token] test handlers behind a guard. [Issuer.Sign]
//     signs any other token, good or bad.
//   - [Issuer.AddResource], [Issuer.AddRole] and [Issuer.AddApp] set up what an
//     administrator would. Apps then fetch their tokens from [Issuer.TokenURL]. For
//     organizations, use [Issuer.AddOrganization], [Issuer.AddOrganizationRole] and
//     [Issuer.AddToOrganization].
//
// # Keys and time
//
// [Issuer.Rotate] and [Issuer.Withdraw] change the keys. [Issuer.Intercept] makes the
// issuer fail. A guard caches keys, so it may not notice at once: by default it uses
// them for 10 minutes, and for an hour more while the issuer fails. Run such a test in
// a bubble of [testing/synctest], where [time.Sleep] takes no time:
//
//	synctest.Test(t, func(t *testing.T) {
//		… // a request that makes the guard fetch the keys
//		issuer.Rotate("ES384")
//		issuer.Withdraw(kid)
//		time.Sleep(10 * time.Minute) // Config.KeyTTL
//		… // a token signed with kid now gets 401
//	})
//
// The package signs with the standard library, so it shares no code with what it
// tests. Its responses follow recordings of a Logto 1.42 server. It knows no users. In
// FIPS 140 mode (GODEBUG=fips140=on or only), it keeps one goroutine running.
//
// To test an adapter to a web framework, use package
// [github.com/m2mauth/m2mauth/m2mauthtest/adaptertest].
package m2mauthtest
