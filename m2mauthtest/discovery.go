package m2mauthtest

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
)

// recordedDiscovery is the discovery document of a real Logto server. It lists more
// than an [Issuer] offers, such as endpoints for users.
//
//go:embed openid-configuration.json
var recordedDiscovery string

const (
	recordedOrigin      = "http://localhost:3001"
	recordedSigningAlgs = `["ES384"]`
)

func (i *Issuer) serveDiscovery(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	algs := i.keys.signingAlgs()
	i.mu.Unlock()
	const member = `"id_token_signing_alg_values_supported":`
	doc := strings.ReplaceAll(recordedDiscovery, recordedOrigin, i.origin)
	doc = strings.Replace(doc, member+recordedSigningAlgs, member+string(marshal(algs)), 1)

	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("ETag", etag([]byte(doc)))
	writeDocument(w, r, []byte(doc))
}

func (i *Issuer) serveJWKS(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	body := i.keys.jwks()
	i.mu.Unlock()

	w.Header().Set("Content-Type", "application/jwk-set+json; charset=utf-8")
	if r.Method == http.MethodGet { // the recorded server sends neither with HEAD
		w.Header().Set("Cache-Control", "no-cache, max-age=0, must-revalidate")
		w.Header().Set("ETag", etag(body))
	}
	writeDocument(w, r, body)
}

// writeDocument responds with the body, or with 304 if the client has it already. If
// the client says no-cache, it gets the body in any case, as from Logto's server.
func writeDocument(w http.ResponseWriter, r *http.Request, body []byte) {
	h := w.Header()
	allowOrigins(h)
	if tag := h.Get("ETag"); tag != "" && !saysNoCache(r.Header.Values("Cache-Control")) && matches(r.Header.Values("If-None-Match"), tag) {
		h.Del("Content-Type")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// etag returns a strong entity tag in the form of Logto's.
func etag(body []byte) string {
	sum := sha256.Sum256(body)
	return fmt.Sprintf(`"%x-%s"`, len(body), base64.StdEncoding.EncodeToString(sum[:])[:27])
}

// saysNoCache looks for the directive as Logto's server does: in its exact form.
func saysNoCache(fields []string) bool {
	for directive := range strings.SplitSeq(strings.Join(fields, ","), ",") {
		if strings.TrimSpace(directive) == "no-cache" {
			return true
		}
	}
	return false
}

// matches evaluates If-None-Match (RFC 9110 section 13.1.2). An Issuer's tags have no
// comma, so splitting at commas is enough.
func matches(fields []string, tag string) bool {
	for _, field := range fields {
		for candidate := range strings.SplitSeq(field, ",") {
			candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
			if candidate == tag || candidate == "*" {
				return true
			}
		}
	}
	return false
}
