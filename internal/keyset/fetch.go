package keyset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/m2mauth/m2mauth/internal/strictjson"
)

// Source says where an issuer's keys are, and how to read them.
type Source struct {
	Issuer       string
	URL          string // of the key set; if "", the issuer's discovery document names it
	RSAAlgorithm string // for RSA keys without alg; if "", they cannot be used
	Client       *http.Client
	Timeout      time.Duration // of a fetch; Fetch expects it in its context
}

// Fetch fetches the key set. It fetches the discovery document first if no old set says
// where the keys are, or with rediscover. A set is rejected as a whole or replaces the
// old one as a whole, so that a withdrawn key is gone. The error is an [*Error].
func (s *Source) Fetch(ctx context.Context, old *Set, rediscover bool) (*Set, error) {
	address, found, e := s.discover(ctx, old, rediscover)
	if e != nil {
		return nil, e
	}
	etag := ""
	if old != nil && old.url == address {
		etag = old.etag
	}
	doc, e := s.download(ctx, address, etag)
	if e != nil {
		e.Found = found
		return nil, e
	}
	set := new(Set)
	if doc.notModified {
		*set = *old
	} else {
		var err error
		if set, err = Parse(doc.body, s.RSAAlgorithm, old); err != nil {
			return nil, &Error{Found: found, url: address, err: err}
		}
		set.etag = doc.header.Get("ETag")
	}
	set.Found, set.url, set.MaxAge = found, address, maxAge(doc.header)
	return set, nil
}

// Where discovery documents are, relative to an issuer. The second may also be between
// the issuer's host and path.
const (
	openIDDocument = "/.well-known/openid-configuration"
	oauthDocument  = "/.well-known/oauth-authorization-server"
)

// IsDiscovery reports whether a URL's path is that of a discovery document (OpenID
// Connect Discovery §4, RFC 8414 §3). Only these names count: others under
// /.well-known/, and below openid-configuration, are key sets of real issuers.
func IsDiscovery(path string) bool {
	path = strings.TrimSuffix(path, "/")
	return strings.HasSuffix(path, openIDDocument) || strings.HasSuffix(path, oauthDocument) || strings.HasPrefix(path, oauthDocument+"/")
}

// discover returns where the keys are. While the jwks_uri of old keys is known, a
// failure to read the discovery document again is no error.
func (s *Source) discover(ctx context.Context, old *Set, again bool) (address string, found Found, e *Error) {
	switch {
	case s.URL != "":
		return s.URL, found, nil
	case old != nil && !again:
		return old.url, found, nil
	case old != nil:
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.Timeout/2) // leaves time for the keys
		defer cancel()
	}
	address, found.HTTPKeys, e = s.readDiscovery(ctx)
	if e != nil && old != nil {
		return old.url, Found{NotReread: e}, nil
	}
	found.Discovered = e == nil
	return address, found, e
}

// readDiscovery reads OpenID Connect's document. If there is none (any 4xx but 429, or
// something other than a JSON object), it reads that of RFC 8414: first appended to the
// issuer, as Logto serves it, then inserted before its path, as the RFC requires
// (§3.1).
func (s *Source) readDiscovery(ctx context.Context) (address, overHTTP string, first *Error) {
	base := strings.TrimSuffix(s.Issuer, "/")
	issuer, err := url.Parse(base)
	if err != nil {
		return "", "", &Error{url: base, err: err}
	}
	for _, document := range []string{
		base + openIDDocument,
		base + oauthDocument,
		issuer.Scheme + "://" + issuer.Host + oauthDocument + issuer.EscapedPath(),
	} {
		doc, e := s.download(ctx, document, "")
		if e == nil {
			if address, overHTTP, err = s.jwksURI(doc.body, issuer); err == nil {
				return address, overHTTP, nil
			}
			e = &Error{url: document, err: err}
		}
		if _, elsewhere := errors.AsType[absent](e); !elsewhere { // it is here, and this is the problem with it
			return "", "", e
		}
		first = cmp.Or(first, e)
	}
	return "", "", first
}

// jwksURI reads a discovery document (OpenID Connect Discovery §3, RFC 8414 §2).
// overHTTP is the http address in the document if address is the same over https.
func (s *Source) jwksURI(body []byte, issuer *url.URL) (address, overHTTP string, err error) {
	var metadata struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if object := jsontext.Value(body); object.Kind() != '{' || !object.IsValid(strictjson.Lenient...) { // such as a page for people
		return "", "", absent("not a discovery document: no JSON object")
	}
	if err := json.Unmarshal(body, &metadata); err != nil {
		return "", "", errors.New("not a discovery document: a member has the wrong type or is there twice, or a string is not UTF-8")
	}
	if metadata.Issuer != s.Issuer {
		return "", "", fmt.Errorf("the document is of issuer %s, not of Config.Issuer", Loggable(metadata.Issuer))
	}
	u, err := url.Parse(metadata.JWKSURI)
	if err != nil || u.Host == "" || u.User != nil { // not shown, since it may contain a password
		return "", "", errors.New("the document has no jwks_uri that is an absolute URL without user and password")
	}
	if issuer.Scheme == "https" && sameButForTLS(u, issuer) {
		u.Scheme, u.Host = issuer.Scheme, issuer.Host
		return u.String(), Loggable(withoutQueries(metadata.JWKSURI)), nil
	}
	// The jwks_uri in a Logto document follows the request's Host header, so a poisoned
	// cache could change it.
	if !SameOrigin(u, issuer) {
		return "", "", fmt.Errorf("jwks_uri %s is not of the issuer's origin: if the keys are there indeed, set Config.JWKSURL", Loggable(metadata.JWKSURI))
	}
	return metadata.JWKSURI, "", nil
}
