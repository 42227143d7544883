// Package metadata serves the metadata of a protected resource (RFC 9728).
package metadata

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/m2mauth/m2mauth/internal/response"
)

// wellKnown is where RFC 9728 §3.1 puts the metadata, before the resource's path.
const wellKnown = "/.well-known/oauth-protected-resource"

// Document is the metadata (RFC 9728 §2). A member with its zero value is left out.
type Document struct {
	Resource string   `json:"resource"`
	Issuers  []string `json:"authorization_servers"`
	Scopes   []string `json:"scopes_supported,omitempty"`
	BearerBy []string `json:"bearer_methods_supported"`

	Name           string `json:"resource_name,omitempty"`
	Documentation  string `json:"resource_documentation,omitempty"`
	Policy         string `json:"resource_policy_uri,omitempty"`
	TermsOfService string `json:"resource_tos_uri,omitempty"`
}

// Place returns the URL of a resource's document and the pattern that serves it. There
// is none unless the resource is an https URL in ASCII, without query and fragment, and
// without empty or dot segments in its path, which servers would redirect. It may be an
// http URL if insecure says so, which RFC 9728 §1.2 does not allow.
func Place(resource string, insecure func(*url.URL) bool) (address, pattern string, ok bool) {
	u, err := url.Parse(resource)
	if err != nil || !isURL(u, "https") && !(isURL(u, "http") && insecure(u)) || strings.ContainsAny(resource, "?#") || response.Quotable(resource) != resource ||
		strings.TrimSuffix(u.Path, "/") != strings.TrimSuffix(path.Clean("/"+u.Path), "/") {
		return "", "", false
	}
	at := u.EscapedPath()
	if at == "/" {
		at = "" // §3.1: only a slash right after the host is removed
	}
	address, pattern = u.Scheme+"://"+u.Host+wellKnown+at, wellKnown+at
	if strings.HasSuffix(at, "/") {
		pattern += "{$}" // this path alone, not all below it
	}
	return address, pattern, true
}

func isURL(u *url.URL, scheme string) bool {
	return u.Scheme == scheme && u.Hostname() != "" && u.User == nil
}

// Handler returns the handler that serves the document, or an error if a page's URL
// cannot be in it.
func (d Document) Handler() (http.Handler, error) {
	for _, page := range []string{d.Documentation, d.Policy, d.TermsOfService} {
		if u, err := url.Parse(page); page != "" && (err != nil || !isURL(u, "https")) {
			return nil, errors.New("m2mauth: Metadata: Documentation, Policy and TermsOfService must be absolute https URLs without user and password")
		}
	}
	body, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("m2mauth: Metadata: %w", err)
	}
	return served(body), nil
}

// served is the document as JSON. It is public, so scripts of any origin may read it.
type served []byte

func (s served) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "public, max-age=3600")
		_, _ = w.Write(s)
	case http.MethodOptions:
		h.Set("Access-Control-Allow-Methods", "GET, HEAD")
		h.Set("Access-Control-Allow-Headers", "*")
		w.WriteHeader(http.StatusNoContent)
	default:
		h.Set("Allow", "GET, HEAD, OPTIONS")
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}
