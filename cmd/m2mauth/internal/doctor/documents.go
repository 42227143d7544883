package doctor

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/m2mauth/m2mauth/internal/keyset"
)

// proxyRemedy is for a server that does not know that it is reached over https.
const proxyRemedy = "the proxy that ends TLS must send X-Forwarded-Proto: https, and the server must heed it: " +
	"Logto needs ENDPOINT=https://… and TRUST_PROXY_HEADER=1, Keycloak --proxy-headers=xforwarded"

// documents says whether the discovery document can be read, whose it is, and where it
// says the keys are.
func (x *inspection) documents(ctx context.Context) {
	x.encoding(ctx)
	if x.Config.JWKSURL != "" {
		for _, id := range []string{checkDiscovery, checkIdentity} {
			x.Skip(id, "JWKSURL is set, so the guard reads no discovery document")
		}
		if !x.skip(checkKeysURL) {
			u, _ := url.Parse(x.Config.JWKSURL) // New has parsed it
			x.Pass(checkKeysURL, "keys are at "+address(u)+", by JWKSURL")
		}
		return
	}
	x.document(ctx)
	x.identity()
	x.keysURL()
}

// gzipMagic begins whatever gzip made.
const gzipMagic = "\x1f\x8b"

// encoding says whether responses are compressed in a way that clients can undo.
func (x *inspection) encoding(ctx context.Context) {
	if x.skip(checkEncoding) {
		return
	}
	for _, fetch := range [][]exchange{x.discovery, x.keys} {
		if len(fetch) == 0 {
			continue
		}
		e := fetch[len(fetch)-1]
		if e.response == nil || e.response.StatusCode != http.StatusOK {
			continue
		}
		coding := strings.Join(e.response.Header.Values("Content-Encoding"), ", ")
		switch name := strings.ToLower(strings.TrimSpace(coding)); {
		case name != "" && name != "identity" && name != "gzip" && name != "x-gzip":
			x.stop(checkEncoding, fmt.Sprintf("%s comes with the content coding %s, which nobody asked for", address(e.url), Shown(coding)),
				"switch compression off for this path, or have the server or proxy heed Accept-Encoding: only gzip is understood")
			return
		case coding == "" && strings.HasPrefix(e.body.String(), gzipMagic):
			x.stop(checkEncoding, address(e.url)+" is compressed by gzip, but no Content-Encoding says so",
				"a proxy or a cache drops Content-Encoding, or compresses twice: switch compression off for this path")
			return
		}
	}
	if x.failure != nil {
		x.Pass(checkEncoding, "not compressed, or by gzip")
		return
	}
	u := x.keys[len(x.keys)-1].url
	response, _, err := x.get(ctx, u, http.Header{"Accept-Encoding": {"identity"}})
	coding := ""
	if err == nil {
		coding = strings.Join(response.Header.Values("Content-Encoding"), ", ")
	}
	if coding != "" && !strings.EqualFold(coding, "identity") {
		x.Warn(checkEncoding, fmt.Sprintf("%s is compressed (%s) even for clients that ask for no compression; the guard undoes it", address(u), Shown(coding)),
			"have the server or proxy heed Accept-Encoding: other clients cannot read the keys")
		return
	}
	x.Pass(checkEncoding, "not compressed, or by gzip where asked for")
}

// get sends a request of the doctor's own, by the guard's client and within its timeout.
func (x *inspection) get(ctx context.Context, u *url.URL, h http.Header) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	request.Header = h
	request.Header.Set("User-Agent", userAgent)
	request.Header.Set("Accept", "application/json")
	response, err := x.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	return response, body, err
}

const userAgent = "m2mauth-doctor"

// document says whether a discovery document was found.
func (x *inspection) document(ctx context.Context) {
	if x.skip(checkDiscovery) {
		return
	}
	e := x.discovery[len(x.discovery)-1]
	found := "found at " + address(e.url)
	if x.keys != nil {
		x.Pass(checkDiscovery, found)
		return
	}
	body := e.body.Bytes()
	switch code := e.response.StatusCode; {
	case code/100 == 3:
		to, err := e.response.Location()
		if err != nil {
			x.stop(checkDiscovery, fmt.Sprintf("%s redirects to nowhere: status %d", address(e.url), code), "correct the server or the proxy that redirects")
			return
		}
		x.stop(checkDiscovery, fmt.Sprintf("%s redirects to another origin, or too often: to %s", address(e.url), address(to)),
			"another origin must not choose the keys: if you trust it, set Issuer to the issuer there")
	case code == http.StatusBadRequest && x.wantsHTTPS(ctx, e.url):
		x.stop(checkDiscovery, address(e.url)+" answers with status 400, since it wants https", "set Issuer with https://")
	case code == http.StatusNotFound:
		x.stop(checkDiscovery, fmt.Sprintf("%s answers with status 404, and so do the other places of a discovery document", address(e.url)),
			cmp.Or(x.suggestion(ctx), "correct the path of Issuer: Logto's ends in /oidc, Keycloak's in /realms/NAME"))
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		x.stop(checkDiscovery, fmt.Sprintf("%s answers with status %d", address(e.url), code),
			"a proxy or firewall wants a login: let the API read discovery and keys without one, or set JWKSURL or JWKS")
	case code != http.StatusOK:
		x.stop(checkDiscovery, fmt.Sprintf("%s answers with status %d", address(e.url), code),
			"the issuer, or a proxy before it, fails: look at its log")
	case isHTML(e):
		x.stop(checkDiscovery, address(e.url)+" is a page for people (HTML), not a discovery document",
			cmp.Or(x.suggestion(ctx), "correct Issuer: this address is a website's, or a login page that a proxy puts before the issuer"))
	case len(body) > maxBody:
		x.stop(checkDiscovery, address(e.url)+" is larger than 1 MiB", "correct Issuer, if this address is not the issuer's; or set JWKSURL")
	case members(body) == nil:
		x.stop(checkDiscovery, address(e.url)+" is no JSON object, but begins with "+beginning(body),
			cmp.Or(x.suggestion(ctx), "correct Issuer: this address is not the issuer's"))
	case text(members(body), "issuer") == x.Config.Issuer && x.whyNoKeysURL(members(body)) == "":
		x.stop(checkDiscovery, "the guard cannot read "+address(e.url)+": "+x.failure.Error(), "have the issuer correct the document, or set JWKSURL")
	default:
		x.Pass(checkDiscovery, found)
	}
}

// wantsHTTPS reports whether a server takes a request over http for one that should be
// over https: Go's and nginx say so in the body, which the guard does not read.
func (x *inspection) wantsHTTPS(ctx context.Context, u *url.URL) bool {
	if u.Scheme != "http" {
		return false
	}
	_, body, err := x.get(ctx, u, http.Header{})
	return err == nil && bytes.Contains(body, []byte("HTTPS"))
}

// suggestion looks for the issuer at other paths of its own origin.
func (x *inspection) suggestion(ctx context.Context) string {
	u, err := url.Parse(x.Config.Issuer)
	if err != nil {
		return ""
	}
	origin, path := u.Scheme+"://"+u.Host, strings.TrimSuffix(u.EscapedPath(), "/")
	for _, candidate := range []string{origin + path + "/oidc", origin + "/oidc", origin} {
		document, err := url.Parse(candidate + "/.well-known/openid-configuration")
		if err != nil || candidate == origin+path {
			continue
		}
		response, body, err := x.get(ctx, document, http.Header{})
		if err != nil || response.StatusCode != http.StatusOK {
			continue
		}
		if issuer := text(members(body), "issuer"); strings.TrimSuffix(issuer, "/") == candidate {
			return "set Issuer to " + Shown(issuer) + ", which has a discovery document"
		}
	}
	return ""
}

// identity says whether the document is the issuer's.
func (x *inspection) identity() {
	if x.skip(checkIdentity) {
		return
	}
	want := x.Config.Issuer
	if x.keys != nil {
		x.Pass(checkIdentity, "the document is of issuer "+Shown(want))
		return
	}
	got := text(members(x.discovery[len(x.discovery)-1].body.Bytes()), "issuer")
	if got == want {
		x.Pass(checkIdentity, "the document is of issuer "+Shown(want))
		return
	}
	if got == "" {
		x.stop(checkIdentity, "the document names no issuer", "have the server name it (OpenID Connect Discovery §3), or set JWKSURL")
		return
	}
	x.stop(checkIdentity, fmt.Sprintf("the document is of issuer %s, not of %s", shownURL(got), Shown(want)), identityRemedy(want, got))
}

// identityRemedy says what to do about a document of another issuer.
func identityRemedy(want, got string) string {
	set := "set Issuer to exactly what the document says"
	w, err1 := url.Parse(want)
	g, err2 := url.Parse(got)
	switch {
	case err1 != nil || err2 != nil || g.Host == "":
		return "have the server name itself by an absolute URL (its ENDPOINT, hostname or public URL), or set JWKSURL"
	case strings.EqualFold(strings.TrimSuffix(want, "/"), strings.TrimSuffix(got, "/")):
		return set + ": the two differ by a trailing slash or by letter case alone, and are compared exactly"
	case w.Scheme == "https" && g.Scheme == "http" && strings.EqualFold(w.Hostname(), g.Hostname()):
		return proxyRemedy
	case w.Scheme == "http" && g.Scheme == "https" && strings.EqualFold(w.Host, g.Host) && w.Path == g.Path:
		return set + ", with https"
	case !strings.EqualFold(w.Hostname(), g.Hostname()):
		return "the server has another domain: " + set + ", if you trust it, and have callers request tokens there; " +
			"or give the server this domain (Logto: ENDPOINT)"
	}
	return set + ", if you trust it: scheme, port and path count too"
}

// keysURL says where the document says the keys are.
func (x *inspection) keysURL() {
	if x.skip(checkKeysURL) {
		return
	}
	all := members(x.discovery[len(x.discovery)-1].body.Bytes())
	if x.keys == nil {
		x.stop(checkKeysURL, x.whyNoKeysURL(all), "if the keys are there indeed, set JWKSURL to that address; "+
			"a server that is reached by an internal name may name it here (Logto follows the Host header): reach it by the issuer's host")
		return
	}
	asked := x.keys[0].url
	if u, err := url.Parse(text(all, "jwks_uri")); err == nil && u.Scheme != asked.Scheme {
		x.Warn(checkKeysURL, fmt.Sprintf("jwks_uri is %s: the guard asks for it over %s", address(u), asked.Scheme), proxyRemedy)
		return
	}
	x.Pass(checkKeysURL, address(asked)+", of the issuer's origin")
}

// whyNoKeysURL says why the guard does not take the keys from where a document says.
func (x *inspection) whyNoKeysURL(all map[string]json.RawMessage) string {
	issuer, err := url.Parse(x.Config.Issuer)
	if err != nil {
		return ""
	}
	value := text(all, "jwks_uri")
	u, err := url.Parse(value)
	switch {
	case value == "":
		return "the document has no jwks_uri"
	case err != nil || u.Host == "":
		return "the document's jwks_uri is not an absolute URL"
	case u.User != nil:
		return "the document's jwks_uri has a user name or a password"
	case keyset.SameOrigin(u, issuer):
		return ""
	case strings.EqualFold(u.Hostname(), issuer.Hostname()):
		return "jwks_uri is " + address(u) + ", of another origin than the issuer by its scheme or port"
	}
	return "jwks_uri is " + address(u) + ", of another origin than the issuer"
}

// members returns those of a JSON object, or nil for anything else.
func members(body []byte) (all map[string]json.RawMessage) {
	if json.Unmarshal(body, &all) != nil {
		return nil
	}
	return all
}

// text returns a member that is a string, or "".
func text(all map[string]json.RawMessage, name string) (s string) {
	if json.Unmarshal(all[name], &s) != nil {
		return ""
	}
	return s
}

func isHTML(e exchange) bool {
	start := strings.ToLower(strings.TrimSpace(string(e.body.Bytes()[:min(512, e.body.Len())])))
	return strings.HasPrefix(start, "<!doctype html") || strings.HasPrefix(start, "<html") ||
		strings.HasPrefix(start, "<") && strings.Contains(e.response.Header.Get("Content-Type"), "html")
}

// beginning shows how a body begins.
func beginning(body []byte) string {
	if len(body) == 0 {
		return "nothing"
	}
	return fmt.Sprintf("%q", string(body[:min(40, len(body))]))
}

// address shows a URL without what may be secret: user, password, query and fragment.
func address(u *url.URL) string {
	return Shown((&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String())
}

// shownURL is address for a stranger's text.
func shownURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "something that is no URL"
	}
	return address(u)
}

// joined is the text of an error, with all mistakes in one line.
func joined(err error) string {
	var all []string
	if several, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err); ok {
		for _, e := range several.Unwrap() {
			all = append(all, joined(e))
		}
		return strings.Join(all, "; ")
	}
	return strings.TrimPrefix(err.Error(), "m2mauth: ")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
