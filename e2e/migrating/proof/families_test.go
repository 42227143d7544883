package proof

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/m2mauthtest"
)

const (
	audience = "https://shopping.api"
	apps     = 100 // from app0 on
)

// A draft becomes a request. It begins as one that every API lets through.
type draft struct {
	random       *rand.Rand
	issuer       *m2mauthtest.Issuer
	second       string // a key of another algorithm that the issuer publishes
	known        string // a good token that is used again and again
	method, path string
	token        m2mauthtest.Token
	fields       func(token string) []string // of the request's header
}

func newDraft(issuer *m2mauthtest.Issuer, second string, random *rand.Rand) *draft {
	d := &draft{random: random, issuer: issuer, second: second, method: "GET", path: "/products"}
	d.token = m2mauthtest.Token{
		AppID:    fmt.Sprint("app", random.IntN(apps)),
		Audience: audience,
		Scopes:   []string{"read:products"},
		Claims:   map[string]any{},
		Header:   map[string]any{},
	}
	if random.IntN(2) == 0 {
		d.method, d.token.Scopes = "POST", []string{"write:products"}
	}
	d.fields = func(token string) []string { return []string{"Authorization: Bearer " + token} }
	return d
}

func (d *draft) scope() string { return d.token.Scopes[0] }

func (d *draft) write(number int) []byte {
	return write(d.method, d.path, fmt.Sprint(number), d.fields(d.issuer.Sign(d.token)))
}

// claim sets a claim; nil takes it away.
func (d *draft) claim(name string, value any) { d.token.Claims[name] = value }

// at is a time as claims have it.
func at(d time.Duration) int64 { return time.Now().Add(d).Unix() }

// again makes the JSON of the token's payload or header, of which some is then changed
// in a way that no encoder writes.
func (d *draft) again(part int) string {
	decoded, err := base64.RawURLEncoding.DecodeString(strings.Split(d.issuer.Sign(d.token), ".")[part])
	if err != nil {
		panic(err)
	}
	return string(decoded)
}

func (d *draft) payload(change func(string) string) {
	d.token.RawClaims = []byte(change(d.again(1)))
}

func (d *draft) header(change func(string) string) {
	d.token.RawHeader = []byte(change(d.again(0)))
}

// signed changes the token after it was signed.
func (d *draft) signed(change func(string) string) {
	was := d.fields
	d.fields = func(token string) []string { return was(change(token)) }
}

func (d *draft) authorization(format string) {
	d.fields = func(token string) []string {
		return []string{"Authorization: " + strings.ReplaceAll(format, "TOKEN", token)}
	}
}

// A family is a way in which a request differs from the usual one. Its words are those
// of the pages. All of a family are decided alike, whatever decides.
type family struct {
	part    string // of the request: that is how the pages group families
	words   string
	changes []func(*draft)
	// keep is the setting that lets such requests pass or, where the guard accepts more
	// than a library, that keeps them out; nil if there is none.
	keep      func(*m2mauth.Config)
	keepWords string
}

// Parts of a request.
const (
	theRequest   = "the request"
	theSignature = "the signature"
	theHeader    = "the token's header"
	theClaims    = "the claims"
	theScopes    = "the scopes"
)

func in(part, words string, changes ...func(*draft)) family {
	return family{part: part, words: words, changes: changes}
}

func (f family) kept(words string, keep func(*m2mauth.Config)) family {
	f.keepWords, f.keep = words, keep
	return f
}

func claim(name string, value any) func(*draft) { return func(d *draft) { d.claim(name, value) } }

func header(name string, value any) func(*draft) {
	return func(d *draft) { d.token.Header[name] = value }
}

func moment(name string, after time.Duration) func(*draft) {
	return func(d *draft) { d.claim(name, at(after)) }
}

func authorization(format string) func(*draft) {
	return func(d *draft) { d.authorization(format) }
}

func replaceInPayload(from, to string) func(*draft) {
	return func(d *draft) {
		d.payload(func(p string) string {
			if !strings.Contains(p, from) {
				panic(p + " lacks " + from)
			}
			return strings.Replace(p, from, to, 1)
		})
	}
}

func atEndOfPayload(members func(*draft) string) func(*draft) {
	return func(d *draft) {
		d.payload(func(p string) string { return strings.TrimSuffix(p, "}") + "," + members(d) + "}" })
	}
}

func text(s string) func(*draft) string { return func(*draft) string { return s } }

// usual are requests that every API lets through.
var usual = family{words: "a usual request", changes: []func(*draft){
	func(*draft) {},
	func(*draft) {},
	func(d *draft) { d.token.Scopes = []string{"other", d.scope(), "read:orders"} },
	func(d *draft) { d.token.Scopes = []string{"write:products", "read:products"} },
	func(d *draft) { d.claim("sub", "alice") },
	func(d *draft) { d.claim("aud", []string{"https://other.api", audience}) },
	func(d *draft) { d.claim("aud", []string{audience}) },
	func(d *draft) { d.claim("nbf", at(-time.Minute)) },
	func(d *draft) { d.claim("roles", []string{"a", "b"}) },
	func(d *draft) { d.token.Header["typ"] = "application/at+jwt" },
	func(d *draft) { d.token.Header["typ"] = "AT+JWT" },
	func(d *draft) {
		d.fields = func(token string) []string { return []string{"authorization: Bearer " + token, "Accept: */*"} }
	},
	func(d *draft) { d.path = "/products?access_token=other" },
	func(d *draft) { d.method, d.token.Scopes = "HEAD", []string{"read:products"} },
	func(d *draft) {
		d.fields = func(string) []string { return []string{"Authorization: Bearer " + d.known} }
	},
	func(d *draft) {
		d.fields = func(string) []string { return []string{"Authorization: Bearer " + d.known} }
	},
}}

// unusual are all others.
var unusual = []family{
	in(theRequest, "no token", func(d *draft) { d.fields = func(string) []string { return nil } }),
	in(theRequest, "a path or a method without a rule",
		func(d *draft) { d.path = "/unknown" }, func(d *draft) { d.path = "/products/1" },
		func(d *draft) { d.method = "DELETE" }, func(d *draft) { d.method = "OPTIONS" },
		func(d *draft) { d.method, d.fields = "PUT", func(string) []string { return nil } }),
	in(theRequest, "the token in a query, a cookie or another header",
		func(d *draft) {
			d.path += "?access_token=" + d.issuer.Sign(d.token)
			d.fields = func(string) []string { return nil }
		},
		func(d *draft) {
			d.fields = func(token string) []string { return []string{"Cookie: access_token=" + token} }
		},
		func(d *draft) {
			d.fields = func(token string) []string { return []string{"X-Authorization: Bearer " + token} }
		}),
	in(theRequest, "another scheme", authorization("Basic TOKEN"), authorization("TOKEN"), authorization("Token TOKEN"), authorization("JWT TOKEN")),
	in(theRequest, "the scheme `DPoP`", authorization("DPoP TOKEN")),
	in(theRequest, "`bearer` in other letters", authorization("bearer TOKEN"), authorization("BEARER TOKEN")),
	in(theRequest, "more than one space after `Bearer`", authorization("Bearer  TOKEN"), authorization("Bearer    TOKEN")),
	in(theRequest, "a tab after `Bearer`", authorization("Bearer\tTOKEN")),
	in(theRequest, "two tokens in one header", authorization("Bearer TOKEN, Bearer TOKEN"), authorization("Bearer TOKEN TOKEN")),
	in(theRequest, "two `Authorization` headers, the good one first",
		func(d *draft) {
			d.fields = func(token string) []string {
				return []string{"Authorization: Bearer " + token, "Authorization: Basic YTpi"}
			}
		},
		func(d *draft) {
			d.fields = func(token string) []string {
				return []string{"Authorization: Bearer " + token, "Authorization: Bearer x.y.z"}
			}
		}),
	in(theRequest, "two `Authorization` headers, the good one last",
		func(d *draft) {
			d.fields = func(token string) []string {
				return []string{"Authorization: Basic YTpi", "Authorization: Bearer " + token}
			}
		}),
	in(theRequest, "what is no token", authorization("Bearer x"), authorization("Bearer x.y.z"), authorization("Bearer opaque-token"), authorization("Bearer ....")),
	in(theRequest, "a token that is not in the compact form", func(d *draft) {
		d.signed(func(token string) string {
			p := strings.Split(token, ".")
			return fmt.Sprintf(`{"payload":"%s","protected":"%s","signature":"%s"}`, p[1], p[0], p[2])
		})
	}),
	in(theRequest, "a token of more than 8 KiB", func(d *draft) { d.claim("groups", strings.Repeat("x", 9<<10)) }).
		kept("`MaxTokenBytes: 16 << 10`", func(c *m2mauth.Config) { c.MaxTokenBytes = 16 << 10 }),

	in(theSignature, "a wrong signature",
		func(d *draft) { d.signed(func(token string) string { return token[:len(token)-8] + "AAAAAAAA" }) },
		func(d *draft) {
			d.signed(func(token string) string { return token[:strings.LastIndexByte(token, '.')+1] })
		},
		func(d *draft) { d.signed(func(token string) string { return token + "AAAA" }) },
		func(d *draft) {
			d.signed(func(token string) string {
				p := strings.Split(token, ".")
				p[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(d.again(1), "app", "bpp", 1)))
				return strings.Join(p, ".")
			})
		}),
	in(theSignature, "a padded signature", func(d *draft) { d.signed(func(token string) string { return token + "=" }) }),
	in(theSignature, "in the other alphabet of base64 (`+` and `/`)", func(d *draft) {
		d.signed(func(token string) string {
			end := strings.LastIndexByte(token, '.')
			for !strings.ContainsAny(token[end:], "-_") { // a few have neither
				token = d.issuer.Sign(d.token)
			}
			return token[:end] + strings.NewReplacer("-", "+", "_", "/").Replace(token[end:])
		})
	}),
	in(theSignature, "`alg` is `none` or symmetric",
		func(d *draft) { d.token.Algorithm = "none" },
		func(d *draft) { d.token.Algorithm, d.token.Secret = "HS256", []byte("secret") },
		func(d *draft) { d.token.Algorithm, d.token.Secret = "HS384", []byte(d.issuer.KeyIDs()[0]) }),
	in(theSignature, "`alg` is another than the key's", func(d *draft) { d.token.Algorithm = "ES256" }, func(d *draft) { d.token.Algorithm = "ES512" }),
	in(theSignature, "signed by a key of the issuer for another algorithm", func(d *draft) { d.token.KeyID = d.second }).
		kept("`Algorithms: []string{\"ES384\"}`", func(c *m2mauth.Config) { c.Algorithms = []string{"ES384"} }),
	in(theSignature, "ES256 with a last character that no encoder writes", func(d *draft) {
		d.token.KeyID = d.second
		d.signed(func(token string) string {
			const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
			last := strings.IndexByte(alphabet, token[len(token)-1])
			return token[:len(token)-1] + alphabet[last|1:last|1+1]
		})
	}),
	in(theHeader, "`kid` is absent", header("kid", nil)),
	in(theHeader, "`kid` is not a string", header("kid", 7), header("kid", []string{"a"})),
	in(theHeader, "`kid` is unknown", header("kid", "unknown"), func(d *draft) { d.token.Header["kid"] = fmt.Sprint(d.random.Uint64()) }),
	in(theHeader, "`kid` is empty", header("kid", "")),
	in(theHeader, "`kid` is another key's", func(d *draft) { d.token.Header["kid"] = d.second }),
	in(theHeader, "`typ` is absent", header("typ", nil)).
		kept("`TokenTypes: []string{\"at+jwt\", \"\"}`", func(c *m2mauth.Config) { c.TokenTypes = []string{"at+jwt", ""} }),
	in(theHeader, "`typ` is `JWT`", header("typ", "JWT"), header("typ", "jwt")).
		kept("`TokenTypes: []string{\"at+jwt\", \"JWT\"}`", func(c *m2mauth.Config) { c.TokenTypes = []string{"at+jwt", "JWT"} }),
	in(theHeader, "`typ` is of another kind of token", header("typ", "logout+jwt"), header("typ", "secevent+jwt")).
		kept("`TokenTypes` can name it, but should not", func(c *m2mauth.Config) { c.TokenTypes = []string{"at+jwt", "logout+jwt", "secevent+jwt"} }),
	in(theHeader, "`typ` is not a string", header("typ", 1), header("typ", []string{"at+jwt"})),
	in(theHeader, "`crit` names an unknown extension", header("crit", []string{"exp"}), header("crit", []string{"http://example.com/x"})),
	in(theHeader, "a member twice",
		func(d *draft) { d.header(func(h string) string { return strings.Replace(h, `{`, `{"typ":"JWT",`, 1) }) },
		func(d *draft) {
			d.header(func(h string) string { return strings.Replace(h, `{`, `{"kid":"other",`, 1) })
		}),
	in(theHeader, "`ALG` in place of `alg`", func(d *draft) {
		d.header(func(h string) string { return strings.Replace(h, `"alg"`, `"ALG"`, 1) })
	}),

	in(theClaims, "`iss` is another's", claim("iss", "https://other.test/oidc"), func(d *draft) { d.claim("iss", d.issuer.URL()+"/") }),
	in(theClaims, "`iss` is absent", claim("iss", nil)),
	in(theClaims, "`aud` is another API's", claim("aud", "https://other.api")).
		kept("`OtherAudiences: []string{\"https://other.api\"}`", func(c *m2mauth.Config) { c.OtherAudiences = []string{"https://other.api"} }),
	in(theClaims, "`aud` with a slash at its end", claim("aud", audience+"/")).
		kept("`OtherAudiences: []string{\"https://shopping.api/\"}`", func(c *m2mauth.Config) { c.OtherAudiences = []string{audience + "/"} }),
	in(theClaims, "`aud` is absent", claim("aud", nil)).
		kept("`ClientsWithoutAudience` names the clients", func(c *m2mauth.Config) {
			for n := range apps {
				c.ClientsWithoutAudience = append(c.ClientsWithoutAudience, fmt.Sprint("app", n))
			}
		}),
	in(theClaims, "`aud` is not a string or a list of strings", claim("aud", 7), claim("aud", []any{audience, 7}), claim("aud", map[string]any{"a": audience})),
	in(theClaims, "an organization in `aud` beside the API", claim("aud", []string{audience, "urn:logto:organization:acme"})),
	in(theClaims, "an organization token", claim("aud", "urn:logto:organization:acme")),
	in(theClaims, "a token limited to an organization (`organization_id`)", func(d *draft) { d.token.OrganizationID = "acme" }).
		kept("`InsecureAllowOrganizationTokens: true`", func(c *m2mauth.Config) { c.InsecureAllowOrganizationTokens = true }),
	in(theClaims, "`exp` is absent", claim("exp", nil)),
	in(theClaims, "`exp` is `null`", claim("exp", json.RawMessage("null"))),
	in(theClaims, "`exp` is not a number", claim("exp", "never"), func(d *draft) { d.claim("exp", []int64{at(time.Hour)}) }),
	in(theClaims, "`exp` is a string of digits", func(d *draft) { d.claim("exp", fmt.Sprint(at(time.Hour))) }),
	in(theClaims, "`exp` with a fraction", func(d *draft) { d.claim("exp", json.RawMessage(fmt.Sprint(at(time.Hour), ".5"))) }),
	in(theClaims, "`exp` with an exponent", claim("exp", json.RawMessage("9.5e9"))),
	in(theClaims, "`exp` beyond the year 9999", claim("exp", json.RawMessage("300000000000"))),
	in(theClaims, "`exp` passed more than 30 s ago", func(d *draft) { d.token.Expired = true }, moment("exp", -45*time.Second)),
	in(theClaims, "`exp` passed less than 30 s ago", moment("exp", -15*time.Second), moment("exp", -5*time.Second)).
		kept("`Leeway: -1`", func(c *m2mauth.Config) { c.Leeway = -1 }),
	in(theClaims, "`nbf` is up to 5 minutes ahead", moment("nbf", time.Minute), moment("nbf", 4*time.Minute)).
		kept("`Leeway: 5 * time.Minute`, which counts for `exp` too", func(c *m2mauth.Config) { c.Leeway = 5 * time.Minute }),
	in(theClaims, "`nbf` is further ahead", moment("nbf", 20*time.Minute)),
	in(theClaims, "`nbf` is less than 30 s ahead", moment("nbf", 15*time.Second)).
		kept("`Leeway: -1`", func(c *m2mauth.Config) { c.Leeway = -1 }),
	in(theClaims, "`iat` is up to 10 minutes ahead", moment("iat", 5*time.Minute), moment("iat", time.Minute)).
		kept("`Leeway: 10 * time.Minute`, which counts for `exp` too", func(c *m2mauth.Config) { c.Leeway = 10 * time.Minute }),
	in(theClaims, "`iat` is further ahead", moment("iat", 20*time.Minute)),
	in(theClaims, "`iat` is less than 30 s ahead", moment("iat", 15*time.Second)).
		kept("`Leeway: -1`", func(c *m2mauth.Config) { c.Leeway = -1 }),
	in(theClaims, "`iat` or `jti` is absent", claim("iat", nil), claim("jti", nil)),
	in(theClaims, "`jti` is not a string", claim("jti", 7)),
	in(theClaims, "`sub` is absent", claim("sub", nil)).
		kept("`AllowMissingSubject: true`", func(c *m2mauth.Config) { c.AllowMissingSubject = true }),
	in(theClaims, "`sub` is not a string", claim("sub", 7)),
	in(theClaims, "the client is in `azp`, not in `client_id`", func(d *draft) { d.claim("client_id", nil); d.claim("azp", d.token.AppID) }).
		kept("`ClientClaims: []string{\"client_id\", \"azp\"}`", func(c *m2mauth.Config) { c.ClientClaims = []string{"client_id", "azp"} }),
	in(theClaims, "no claim names the client", claim("client_id", nil)).
		kept("`ClientClaims: []string{\"sub\"}` with `IsMachine`", func(c *m2mauth.Config) {
			c.ClientClaims, c.IsMachine = []string{"sub"}, func(m2mauth.Claims) bool { return true }
		}),
	in(theClaims, "`cnf` with a key of the client (DPoP)", claim("cnf", map[string]any{"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"})),
	in(theClaims, "`cnf` with a certificate of the client (mTLS)", claim("cnf", map[string]any{"x5t#S256": "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0"})),
	in(theClaims, "a malformed `act`", claim("act", "agent"), claim("act", map[string]any{"client_id": "agent"})),
	in(theClaims, "a claim twice",
		func(d *draft) { atEndOfPayload(text(`"aud":"` + audience + `"`))(d) },
		func(d *draft) { atEndOfPayload(func(d *draft) string { return `"scope":"` + d.scope() + `"` })(d) },
		func(d *draft) { atEndOfPayload(text(`"own":1,"own":2`))(d) }),
	in(theClaims, "a claim beside its name in capitals (`scope` and `SCOPE`)", func(d *draft) {
		scope := d.scope()
		d.token.Scopes = []string{"other"}
		atEndOfPayload(text(`"SCOPE":"` + scope + `"`))(d)
	}),
	in(theClaims, "`SCOPE` in place of `scope`", replaceInPayload(`"scope"`, `"SCOPE"`)).
		kept("`ScopeClaims: []string{\"scope\", \"SCOPE\"}`", func(c *m2mauth.Config) { c.ScopeClaims = []string{"scope", "SCOPE"} }),
	in(theClaims, "`AUD` in place of `aud`", replaceInPayload(`"aud"`, `"AUD"`)),
	in(theClaims, "`EXP` in place of `exp`", replaceInPayload(`"exp"`, `"EXP"`)),
	in(theClaims, "bytes that are not UTF-8", replaceInPayload(`"jti":"`, "\"own\":\"\xff\",\"jti\":\"")),
	in(theClaims, "half a surrogate pair", replaceInPayload(`"jti":"`, `"own":"\ud800","jti":"`)),
	in(theClaims, "JSON nested more than 32 deep", atEndOfPayload(text(`"own":`+strings.Repeat("[", 40)+strings.Repeat("]", 40)))),
	in(theClaims, "more after the claims' object", func(d *draft) { d.payload(func(p string) string { return p + "{}" }) }),
	in(theClaims, "claims that are no object", func(d *draft) { d.token.RawClaims = []byte(`"x"`) }, func(d *draft) { d.token.RawClaims = []byte(`null`) }),

	in(theScopes, "no scope, or others", func(d *draft) { d.token.Scopes = nil }, func(d *draft) { d.token.Scopes = []string{""} },
		func(d *draft) { d.token.Scopes = []string{"read:orders", "products"} }),
	in(theScopes, "a scope whose name only contains the route's",
		func(d *draft) { d.token.Scopes = []string{d.scope() + ":own"} }, func(d *draft) { d.token.Scopes = []string{"not-" + d.scope()} }).
		kept("`ImpliedScopes: map[string][]string{\"read:products:own\": {\"read:products\"}}`", func(c *m2mauth.Config) {
			c.ImpliedScopes = map[string][]string{
				"read:products:own": {"read:products"}, "not-read:products": {"read:products"},
				"write:products:own": {"write:products"}, "not-write:products": {"write:products"},
			}
		}),
	in(theScopes, "in other letters", func(d *draft) { d.token.Scopes = []string{strings.ToUpper(d.scope())} }),
	in(theScopes, "separated by a tab or a line break",
		func(d *draft) { d.token.Scopes = []string{"other\t" + d.scope()} }, func(d *draft) { d.token.Scopes = []string{d.scope() + "\nother"} }),
	in(theScopes, "separated by a comma", func(d *draft) { d.token.Scopes = []string{d.scope() + ",other"} }),
	in(theScopes, "`scope` is a list", func(d *draft) { d.claim("scope", []string{"other", d.scope()}) }),
	in(theScopes, "in `scp` or `permissions`",
		func(d *draft) { d.claim("scp", d.token.Scopes); d.token.Scopes = nil },
		func(d *draft) { d.claim("permissions", d.token.Scopes); d.token.Scopes = nil }),
}
