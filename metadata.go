package m2mauth

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/m2mauth/m2mauth/internal/metadata"
	"github.com/m2mauth/m2mauth/internal/setting"
)

// MetadataConfig describes the API in its metadata (RFC 9728 §2). A field with its
// zero value is left out.
type MetadataConfig struct {
	Scopes         []string // scopes_supported: for clients, not enforced
	Name           string   // resource_name, for people
	Documentation  string   // resource_documentation, an absolute https URL
	Policy         string   // resource_policy_uri, an absolute https URL
	TermsOfService string   // resource_tos_uri, an absolute https URL
}

// Metadata returns the pattern and the handler for the API's metadata (RFC 9728), in
// which clients find the issuer:
//
//	mux.Handle(guard.Metadata(m2mauth.MetadataConfig{}))
//
// After the call, challenges name the document in resource_metadata. The document does
// not depend on the request. It describes Audience. Metadata panics if Audience is not
// an https URL in ASCII, or has a query, a fragment, or an empty or dot segment in its
// path. For development, an http URL will do if its host is a loopback host or among
// Config.InsecureHTTPHosts, such as http://localhost:3001/. Metadata also panics if a
// field of config is not as [MetadataConfig] says.
func (g *Guard) Metadata(config MetadataConfig) (pattern string, handler http.Handler) {
	if !g.ready() {
		panic("m2mauth: Metadata: the Guard is nil or was not made by New; was the error of New ignored?")
	}
	first := g.issuers[0]
	resource := first.claims.audiences[0]
	address, pattern, ok := metadata.Place(resource, func(u *url.URL) bool { return setting.IsInsecureHost(u, first.insecureHosts) })
	if !ok {
		panic(fmt.Sprintf("m2mauth: Metadata: Config.Audience is %q, and must be an https URL in ASCII (http for loopback hosts and those of Config.InsecureHTTPHosts alone), without query and fragment, and without empty or dot segments in its path", resource))
	}
	var scopes []string
	if len(config.Scopes) > 0 {
		scopes = g.scopes.AsIssued(scopeRule("Metadata", config.Scopes, true).scopes(nil))
	}
	handler, err := metadata.Document{
		Resource: resource, Issuers: g.issuersOf(resource), Scopes: scopes, BearerBy: []string{"header"},
		Name: config.Name, Documentation: config.Documentation, Policy: config.Policy, TermsOfService: config.TermsOfService,
	}.Handler()
	if err != nil {
		panic(err.Error())
	}
	g.metadataURL.Store(&address)
	return pattern, handler
}

// issuersOf returns the issuers that can issue tokens for the resource.
func (g *Guard) issuersOf(resource string) (names []string) {
	for _, i := range g.issuers {
		if slices.Contains(i.claims.audiences, resource) {
			names = append(names, i.claims.issuer)
		}
	}
	slices.Sort(names)
	return names
}
