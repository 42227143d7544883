package m2mauth

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
)

// wellKnown is where RFC 9728 §3.1 puts the metadata, before the resource's path.
const wellKnown = "/.well-known/oauth-protected-resource"

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
// path. It also panics if a field of config is not as [MetadataConfig] says.
func (g *Guard) Metadata(config MetadataConfig) (pattern string, handler http.Handler) {
	if !g.ready() {
		panic("m2mauth: Metadata: the Guard is nil or was not made by New; was the error of New ignored?")
	}
	resource := g.issuers[0].claims.audiences[0]
	u, err := url.Parse(resource)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.ContainsAny(resource, "?#") || quotable(resource) != resource ||
		strings.TrimSuffix(u.Path, "/") != strings.TrimSuffix(path.Clean("/"+u.Path), "/") { // servers would redirect it
		panic(fmt.Sprintf("m2mauth: Metadata: Config.Audience is %q, and must be an https URL in ASCII, without query and fragment, and without empty or dot segments in its path", resource))
	}
	var scopes []string
	if len(config.Scopes) > 0 {
		scopes = g.scopes.asIssued(scopeRule("Metadata", config.Scopes, true).scopes(nil))
	}
	for _, page := range []string{config.Documentation, config.Policy, config.TermsOfService} {
		if u, err := url.Parse(page); page != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil) {
			panic("m2mauth: Metadata: Documentation, Policy and TermsOfService must be absolute https URLs without user and password")
		}
	}
	at := u.EscapedPath()
	if at == "/" {
		at = "" // §3.1: only a slash right after the host is removed
	}
	body, err := json.Marshal(struct {
		Resource string   `json:"resource"`
		Issuers  []string `json:"authorization_servers"`
		Scopes   []string `json:"scopes_supported,omitempty"`
		BearerBy []string `json:"bearer_methods_supported"`

		Name           string `json:"resource_name,omitempty"`
		Documentation  string `json:"resource_documentation,omitempty"`
		Policy         string `json:"resource_policy_uri,omitempty"`
		TermsOfService string `json:"resource_tos_uri,omitempty"`
	}{
		resource, g.issuersOf(resource), scopes, []string{"header"},
		config.Name, config.Documentation, config.Policy, config.TermsOfService,
	})
	if err != nil {
		panic("m2mauth: Metadata: " + err.Error())
	}
	document := u.Scheme + "://" + u.Host + wellKnown + at
	g.metadataURL.Store(&document)
	if strings.HasSuffix(at, "/") {
		at += "{$}" // this path alone, not all below it
	}
	return wellKnown + at, metadata(body)
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

// metadata is the document. It is public, so scripts of any origin may read it.
type metadata []byte

func (m metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "public, max-age=3600")
		_, _ = w.Write(m)
	case http.MethodOptions:
		h.Set("Access-Control-Allow-Methods", "GET, HEAD")
		h.Set("Access-Control-Allow-Headers", "*")
		w.WriteHeader(http.StatusNoContent)
	default:
		h.Set("Allow", "GET, HEAD, OPTIONS")
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}
