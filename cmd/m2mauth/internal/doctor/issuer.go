package doctor

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"time"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/keyset"
	"github.com/m2mauth/m2mauth/internal/setting"
)

// Found is what the checks of an issuer found out for those of an app and a token. Each
// field has its zero value if it was not found.
type Found struct {
	Guard         *m2mauth.Guard // of the Config; it has keys if it could fetch any
	Config        m2mauth.Config // as given, with an Audience in any case
	Keys          *keyset.Set    // as the guard reads them
	KeySet        []byte         // of which these are
	TokenEndpoint *url.URL       // of the discovery document, whatever its origin
	ClockAhead    time.Duration  // how far this clock is ahead of the issuer's
}

// The checks of an issuer, in their order.
const (
	checkSettings      = "issuer.settings"
	checkName          = "issuer.name"
	checkConnection    = "issuer.connection"
	checkTLS           = "issuer.tls"
	checkResponse      = "issuer.response"
	checkEncoding      = "issuer.encoding"
	checkDiscovery     = "issuer.discovery"
	checkIdentity      = "issuer.identity"
	checkKeysURL       = "issuer.keys-url"
	checkKeys          = "issuer.keys"
	checkKey           = "issuer.key"
	checkCaching       = "issuer.caching"
	checkClock         = "issuer.clock"
	checkTokenEndpoint = "issuer.token-endpoint"
	checkGuard         = "issuer.guard"
)

// placeholder is the audience where none is given: an issuer can be examined without.
const placeholder = "urn:m2mauth:doctor"

// inspection is one run of the checks of an issuer.
//
// A real guard fetches the keys, and its verdict is the last row. The other rows explain
// it from what went over its wire. Nothing here decides by itself whether a document or a
// key is good enough, so a report cannot disagree with the API.
type inspection struct {
	*Report
	Found
	wire    *recorder
	client  *http.Client
	timeout time.Duration

	failure   error      // of the guard, nil if it has keys
	discovery []exchange // of the document that decided, with its redirects
	keys      []exchange // of the key set
	stopped   string     // the check that failed, so that later ones cannot be made
}

// Settings adds what [m2mauth.ConfigFromEnv] refuses: there is no issuer to examine then.
func (r *Report) Settings(err error) {
	r.Fail(checkSettings, joined(err), "correct the variables: docs/environment.md has them all")
}

// Issuer checks the way to an issuer's keys, and adds what it finds to a report.
func Issuer(ctx context.Context, config m2mauth.Config, r *Report) Found {
	config.Audience = cmp.Or(config.Audience, placeholder)
	x := &inspection{Report: r, Found: Found{Config: config}, timeout: timeoutOf(config)}

	// A copy of the user's client keeps its timeout and its cookies, as the guard does.
	recorded := *keyset.NewClient(config.HTTPClient, x.timeout)
	if recorded.Transport == nil {
		recorded.Transport = http.DefaultTransport
	}
	x.wire = &recorder{base: recorded.Transport}
	recorded.Transport = x.wire
	config.HTTPClient, config.Logger = &recorded, slog.New(slog.DiscardHandler)
	x.client = &recorded

	guard, err := m2mauth.New(config)
	if err != nil {
		x.Fail(checkSettings, "m2mauth.New refuses the settings: "+joined(err), "correct them: docs/configuration.md says what each takes")
		return x.Found
	}
	x.Guard = guard
	x.Pass(checkSettings, "m2mauth.New accepts the settings, for issuer "+Shown(config.Issuer))
	if config.JWKS != nil {
		x.staticKeys()
		return x.Found
	}
	if x.failure = guard.Warm(ctx); x.failure != nil {
		if last := guard.Keys().LastError; last != "" { // the cause; the error is what callers are told
			x.failure = errors.New(users.ReplaceAllString(last, "//"))
		}
	}
	x.sort()
	x.network()
	x.documents(ctx)
	x.keySet()
	x.clock()
	x.tokenEndpoint(ctx)
	x.verdict()
	return x.Found
}

// users matches the user and password of a URL, which a document may name. The guard has
// left out queries.
var users = regexp.MustCompile(`//[^/\s@]*@`)

// sort finds what the guard fetched: at most three discovery documents, then the key set.
// Each may have been redirected.
func (x *inspection) sort() {
	var fetches [][]exchange
	for _, e := range x.wire.recorded() {
		if e.redirected && len(fetches) > 0 {
			fetches[len(fetches)-1] = append(fetches[len(fetches)-1], e)
		} else {
			fetches = append(fetches, []exchange{e})
		}
	}
	isKeys := func(fetch []exchange) bool {
		return x.Config.JWKSURL != "" || !keyset.IsDiscovery(fetch[0].url.Path)
	}
	if n := slices.IndexFunc(fetches, isKeys); n >= 0 {
		x.keys = fetches[n]
		fetches = fetches[:n]
	}
	if len(fetches) == 0 {
		return
	}
	// Where a document lacks, the guard looks at the next place. It ends at the first one
	// that has a document, whatever is wrong with it, and otherwise reports the first place.
	x.discovery = fetches[len(fetches)-1]
	if last := x.discovery[len(x.discovery)-1]; x.keys == nil && isAbsent(last) {
		x.discovery = fetches[0]
	}
}

// isAbsent reports whether there is no discovery document in a response.
func isAbsent(e exchange) bool {
	if e.err != nil || e.response == nil {
		return false
	}
	if code := e.response.StatusCode; code != http.StatusOK {
		return code/100 == 4 && code != http.StatusTooManyRequests
	}
	return members(e.body.Bytes()) == nil
}

// skip skips a check that an earlier failure makes impossible.
func (x *inspection) skip(id string) bool {
	if x.stopped != "" {
		x.Skip(id, "not reached, since "+x.stopped+" failed")
	}
	return x.stopped != ""
}

// stop fails a check, and skips those that follow.
func (x *inspection) stop(id, detail, remedy string) {
	x.Fail(id, detail, remedy)
	x.stopped = id
}

// verdict is what the guard says.
func (x *inspection) verdict() {
	if x.failure != nil {
		remedy := "docs/troubleshooting.md has a row for this reason, under 503"
		if x.stopped != "" {
			remedy = "see " + x.stopped + " above"
		}
		x.Fail(checkGuard, "a guard with these settings has no keys, and answers 503: "+x.failure.Error(), remedy)
		return
	}
	status := x.Guard.Keys()
	usable := 0
	for _, k := range status.Keys {
		if k.Algorithm != "" {
			usable++
		}
	}
	x.Pass(checkGuard, "a guard with these settings is ready: "+count(usable, "usable key")+", "+string(status.State))
}

// timeoutOf is the FetchTimeout that the guard has.
func timeoutOf(c m2mauth.Config) time.Duration {
	otherwise := 5 * time.Second
	if c.KeyTTL > 0 {
		otherwise = min(otherwise, c.KeyTTL/10)
	}
	return cmp.Or(c.FetchTimeout, otherwise)
}

// leewayOf is the Leeway that the guard has.
func leewayOf(c m2mauth.Config) time.Duration { return setting.OrDefault(c.Leeway, 30*time.Second) }
