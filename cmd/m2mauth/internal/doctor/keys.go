package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/m2mauth/m2mauth/internal/ascii"
	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/keyset"
)

// maxKeyRows limits the rows about single keys.
const maxKeyRows = 30

// staticKeys is for a Config with JWKS: nothing is sent anywhere.
func (x *inspection) staticKeys() {
	x.Skip(checkKeysURL, "JWKS is set, so the guard asks nobody")
	set, err := keyset.Parse(x.Config.JWKS, jose.RSAWithoutAlg(x.Config.Algorithms), nil)
	if err != nil { // New has parsed it
		x.failure = err
	}
	x.Keys = set
	x.Pass(checkKeys, "from JWKS; a rotated key must be put there by hand")
	x.eachKey(x.Config.JWKS)
	x.verdict()
}

// keySet says what the issuer publishes.
func (x *inspection) keySet() {
	if x.skip(checkKeys) {
		x.skip(checkCaching)
		return
	}
	e := x.keys[len(x.keys)-1]
	body := e.body.Bytes()
	const look = "look at the log of the issuer, or of the proxy before it"
	switch {
	case e.err != nil && isTimeout(e.err):
		x.stop(checkKeys, fmt.Sprintf("%s did not answer within %v", address(e.url), x.timeout), "see why this address is slow; if it is always so slow, raise FetchTimeout (here --timeout)")
	case e.err != nil:
		x.stop(checkKeys, address(e.url)+" cannot be fetched: "+plain(e.err), look)
	case e.response.StatusCode == http.StatusNotFound:
		x.stop(checkKeys, address(e.url)+" answers with status 404", "correct the address: jwks_uri of the discovery document, or JWKSURL")
	case e.response.StatusCode/100 == 3:
		x.stop(checkKeys, fmt.Sprintf("%s redirects to another origin, or too often", address(e.url)), "set JWKSURL to where the keys are, if you trust it")
	case e.response.StatusCode != http.StatusOK:
		x.stop(checkKeys, fmt.Sprintf("%s answers with status %d", address(e.url), e.response.StatusCode), look)
	case isHTML(e):
		x.stop(checkKeys, address(e.url)+" is a page for people (HTML), not a key set", "correct the address: jwks_uri of the discovery document, or JWKSURL")
	case len(body) > maxBody:
		x.stop(checkKeys, address(e.url)+" is larger than 1 MiB", "have the issuer leave out certificates and keys that nobody needs, or correct the address")
	default:
		x.read(body)
	}
	if !x.skip(checkCaching) {
		x.caching(e)
	}
}

// read says what is in a key set, and what the guard makes of each key.
func (x *inspection) read(body []byte) {
	set, err := keyset.Parse(body, jose.RSAWithoutAlg(x.Config.Algorithms), nil)
	if err != nil {
		total, encryption := 0, 0
		for _, k := range rawKeys(body) {
			total++
			if _, err := jose.ParseKey(k, ""); errors.Is(err, jose.ErrEncryption) {
				encryption++
			}
		}
		switch {
		case rawKeys(body) == nil:
			x.stop(checkKeys, Shown(err.Error()), "correct the address: it does not serve a key set (RFC 7517 §5)")
		case total == 0:
			x.stop(checkKeys, "the key set is empty", "have the issuer create a signing key: it cannot have signed tokens with none")
		case encryption == total:
			x.stop(checkKeys, fmt.Sprintf("the key set has %s, for encryption alone (use: enc)", count(total, "key")),
				"have the issuer publish its signing keys (use: sig), or ask for them at the address that has them, by JWKSURL")
		default:
			x.stop(checkKeys, fmt.Sprintf("the key set has no usable key, of %d", total), "the rows below say what is wrong with each key: replace it at the issuer")
		}
		x.eachKey(body)
		return
	}
	x.Keys, x.KeySet = set, body
	usable := len(slices.DeleteFunc(slices.Clone(set.Keys), func(k *jose.Key) bool { return k.Problem() != nil }))
	x.Pass(checkKeys, fmt.Sprintf("%s published, %d usable", count(len(rawKeys(body)), "key"), usable))
	x.eachKey(body)
}

func rawKeys(body []byte) []json.RawMessage {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal([]byte(strings.TrimPrefix(string(body), "\ufeff")), &set) != nil {
		return nil
	}
	return set.Keys
}

// eachKey has a row for each published key: what it is for, or why it is left out.
func (x *inspection) eachKey(body []byte) {
	raw := rawKeys(body)
	for _, k := range raw[:min(len(raw), maxKeyRows)] {
		key, err := jose.ParseKey(k, jose.RSAWithoutAlg(x.Config.Algorithms))
		name := "a key without kid"
		if key != nil {
			if id, ok := key.ID(); ok {
				name = fmt.Sprintf("kid %s", Shown(id))
			}
		}
		switch {
		case errors.Is(err, jose.ErrEncryption):
			x.Skip(checkKey, name+" is left out: it is for encryption, which is no fault")
		case err != nil:
			x.Warn(checkKey, name+" is left out: "+Shown(err.Error()), "tokens that it signs are refused: if the issuer signs with it, replace it there")
		case !x.accepts(key.Algorithm()):
			x.Warn(checkKey, fmt.Sprintf("%s is for %s, which Algorithms does not name", name, key.Algorithm()), "if the issuer signs with it, name the algorithm in Algorithms")
		default:
			x.Pass(checkKey, fmt.Sprintf("%s verifies %s", name, key.Algorithm()))
		}
	}
	if more := len(raw) - maxKeyRows; more > 0 {
		x.Skip(checkKey, fmt.Sprintf("%d more keys", more))
	}
	if x.Keys == nil {
		return
	}
	for _, o := range x.Keys.Oddities {
		if o.Kind == keyset.Ambiguous {
			x.Warn(checkKey, "different keys are published under one name: "+Shown(o.Reason), "tokens that they sign are refused: give each key a kid of its own at the issuer")
		}
	}
}

// accepts reports whether the guard verifies an algorithm.
func (x *inspection) accepts(alg string) bool {
	return len(x.Config.Algorithms) == 0 || slices.ContainsFunc(x.Config.Algorithms, func(a string) bool {
		name, _ := jose.Algorithm(a)
		return name == alg
	})
}

// oldCopy is when a copy from a cache is worth a look. The guard asks with max-age=0.
const oldCopy = 10 * time.Minute

// caching says how long keys are kept, here and on the way.
func (x *inspection) caching(e exchange) {
	h := e.response.Header
	says := "no Cache-Control"
	if values := h.Values("Cache-Control"); len(values) > 0 {
		says = "Cache-Control: " + Shown(strings.Join(values, ", "))
	}
	if h.Get("ETag") != "" {
		says += ", with ETag"
	}
	if x.Guard.Keys().NextRefresh.IsZero() {
		x.Skip(checkCaching, says)
		return
	}
	says += fmt.Sprintf("; the guard refreshes after %v", time.Until(x.Guard.Keys().NextRefresh).Round(time.Second))
	if age := ageOf(h); age > oldCopy {
		x.Warn(checkCaching, fmt.Sprintf("%s; this copy is %v old", says, age), "a cache on the way ignores max-age=0: exclude the key set from it, or rotated keys arrive late")
		return
	}
	x.Pass(checkCaching, says)
}

// ageOf returns how long a response was in caches (RFC 9111 §5.1).
func ageOf(h http.Header) time.Duration {
	age, err := time.ParseDuration(h.Get("Age") + "s")
	if err != nil || age < 0 {
		return 0
	}
	return age
}

// clock compares this machine's clock with the issuer's, by any response.
func (x *inspection) clock() {
	for _, e := range slices.Concat(x.keys, x.discovery) {
		if e.response == nil {
			continue
		}
		date, err := http.ParseTime(e.response.Header.Get("Date"))
		if err != nil {
			continue
		}
		date = date.Add(ageOf(e.response.Header)) // a cache keeps the date of when it fetched
		x.compare(date, e)
		return
	}
	x.Skip(checkClock, "no response with a Date field")
}

// compare knows Date to a second, and that it was written while the request was on its
// way: within that, the clocks agree.
func (x *inspection) compare(date time.Time, e exchange) {
	earliest, latest := date, date.Add(time.Second)
	switch {
	case e.sent.After(latest):
		x.ClockAhead = e.sent.Sub(latest).Round(time.Second)
	case e.received.Before(earliest):
		x.ClockAhead = e.received.Sub(earliest).Round(time.Second)
	}
	difference, direction := x.ClockAhead, "ahead of"
	if difference < 0 {
		difference, direction = -difference, "behind"
	}
	leeway := leewayOf(x.Config)
	detail := fmt.Sprintf("this clock is %v %s the issuer's; Leeway is %v", difference, direction, leeway)
	const remedy = "run NTP on both machines, and compare each with a third clock: "
	switch {
	case difference == 0:
		x.Pass(checkClock, "this clock and the issuer's agree")
	case difference <= leeway/2:
		x.Pass(checkClock, detail)
	case difference <= leeway:
		x.Warn(checkClock, detail, remedy+"Leeway bridges only a little more")
	case direction == "behind":
		x.Fail(checkClock, detail, remedy+"fresh tokens are refused as not valid yet")
	default:
		x.Fail(checkClock, detail, remedy+"tokens are refused as expired before their time")
	}
}

// tokenEndpoint says whether tokens can be requested where the document says. It sends no
// credentials, so an error of OAuth is the right answer.
func (x *inspection) tokenEndpoint(ctx context.Context) {
	if x.skip(checkTokenEndpoint) {
		return
	}
	if len(x.discovery) == 0 {
		x.Skip(checkTokenEndpoint, "no discovery document was read")
		return
	}
	value := text(members(x.discovery[len(x.discovery)-1].body.Bytes()), "token_endpoint")
	if value == "" {
		x.Skip(checkTokenEndpoint, "the document names none: this issuer hands tokens out in another way")
		return
	}
	u, err := url.Parse(value)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		x.Fail(checkTokenEndpoint, "the document's token_endpoint is not an absolute URL without user and password", "have the issuer correct it")
		return
	}
	x.TokenEndpoint = u
	issuer, _ := url.Parse(x.Config.Issuer) // New has parsed it
	switch {
	case ascii.Lower(u.Hostname()) == ascii.Lower(issuer.Hostname()) && issuer.Scheme == "https" && u.Scheme == "http":
		x.Fail(checkTokenEndpoint, address(u)+" is http, where clients would send their secrets in the clear", proxyRemedy)
	case !keyset.SameOrigin(u, issuer):
		x.Warn(checkTokenEndpoint, address(u)+" is of another origin than the issuer, and was not asked", "if it is the right one, give it as --token-url where a token is to be requested")
	default:
		x.askTokenEndpoint(ctx, u)
	}
}

func (x *inspection) askTokenEndpoint(ctx context.Context, u *url.URL) {
	ctx, cancel := context.WithTimeout(ctx, x.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader("grant_type=client_credentials"))
	if err != nil {
		x.Fail(checkTokenEndpoint, "the document's token_endpoint cannot be asked", "have the issuer correct it")
		return
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("User-Agent", userAgent)
	client := *x.client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Do(request)
	if err != nil && isTimeout(err) {
		x.Fail(checkTokenEndpoint, fmt.Sprintf("%s did not answer within %v", address(u), x.timeout), "see why this address is slow or hangs")
		return
	}
	if err != nil {
		x.Fail(checkTokenEndpoint, address(u)+" does not answer: "+plain(err), "look at the log of the issuer, or of the proxy before it")
		return
	}
	defer response.Body.Close()
	var answer struct {
		Error string `json:"error"`
	}
	known := json.NewDecoder(http.MaxBytesReader(nil, response.Body, maxBody)).Decode(&answer) == nil && answer.Error != ""
	switch code := response.StatusCode; {
	case known && (code == http.StatusBadRequest || code == http.StatusUnauthorized):
		x.Pass(checkTokenEndpoint, fmt.Sprintf("%s answers (%s to a request without credentials)", address(u), Shown(answer.Error)))
	case code == http.StatusNotFound, code/100 == 3:
		x.Fail(checkTokenEndpoint, fmt.Sprintf("%s answers with status %d", address(u), code), "no token endpoint is there: correct the proxy's paths, or what the issuer's document says")
	case code/100 == 5:
		x.Fail(checkTokenEndpoint, fmt.Sprintf("%s answers with status %d", address(u), code), "look at the log of the issuer, or of the proxy before it")
	default:
		x.Warn(checkTokenEndpoint, fmt.Sprintf("%s answers with status %d, and not as RFC 6749 §5.2 says", address(u), code), "see whether a proxy or a firewall answers instead of the issuer")
	}
}
