// Package issuers has a [m2mauth.Config] for each of the common issuers of access
// tokens, made from what you have at hand: a domain, a tenant's ID, an audience.
//
//	config, err := issuers.Auth0("shop.eu.auth0.com", "https://shopping.api")
//	if err != nil {
//		log.Fatal(err)
//	}
//	config.CacheBytes = 64 << 20 // it is yours to change
//	guard, err := m2mauth.New(config)
//
// Each function knows which header an access token of its issuer has, which claims
// hold the client and the scopes, what tells a machine from a user, and what keeps
// an ID token out. Most issuers need a setting of their own before that works, and
// some things stay open: docs/issuers.md has a row for each.
//
// A function returns an error if an argument is empty or has the wrong form. It asks
// nobody: whether the tenant exists shows when the guard fetches keys. The settings
// are from the issuers' documentation and source code, and are tested with tokens
// in that form.
//
// [GitHubActions], [GoogleServiceAccounts] and [KubernetesServiceAccounts] are for
// tokens whose caller chooses the audience. There the audience proves nothing, so
// they take the IDs of those that you trust, and refuse everybody else.
package issuers
