// Package hint has the sentences that say what to do about a token from another issuer,
// for another API, or of another type. Mistakes that are common with Logto get their own
// sentence.
package hint

import (
	"net/url"
	"slices"
	"strings"
)

// OrganizationAudience is the prefix of the audience of Logto's organization tokens.
const OrganizationAudience = "urn:logto:organization:"

// Issuer says what to do about a token from another issuer.
func Issuer(want, got string) string {
	const text = "the token is from another issuer than the one that this API trusts"
	w, err1 := url.Parse(want)
	g, err2 := url.Parse(got)
	logto := "" // empty for users of other issuers
	if err1 == nil && strings.HasSuffix(w.Path, "/oidc") {
		logto = "; Logto's admin tenant is an issuer of its own"
	}
	switch {
	case sameButForSpelling(want, got):
		return text + ": they differ by a trailing slash or by letter case alone, and are compared exactly"
	case got == strings.TrimSuffix(want, "/")+"/oidc":
		return text + ": the issuer of Logto ends in /oidc, and so must this API's Issuer setting"
	case err1 != nil || err2 != nil || g.Host == "":
		return text
	case w.Hostname() == g.Hostname():
		return text + ", though on the same host: scheme, port and path count too" + logto
	case w.Path == g.Path:
		return text + ": request it from the server and domain of that issuer; another domain of the same server is another issuer" + logto
	}
	return text
}

// Audience is Issuer for a token for another resource. want are the accepted audiences.
func Audience(want, got []string) string {
	const text = "the token is for another resource than this API"
	if slices.Equal(want, []string{OrganizationAudience}) {
		return text + ": it is not an organization token; request one with organization_id and without resource"
	}
	for _, g := range got {
		if strings.HasPrefix(g, OrganizationAudience) {
			return text + ": it is an organization token; request one with the resource parameter that names this API"
		}
		for _, w := range want {
			if sameButForSpelling(w, g) {
				return text + ": the two differ by a trailing slash or by letter case alone, and are compared exactly"
			}
		}
	}
	return text + ": request one with the resource parameter that names this API"
}

// Type is Issuer for a token with another typ, which is a media type without
// application/, or with none. ID tokens have the typ JWT, so the hint does not suggest to
// accept it. docs/issuers.md says which issuers use it for access tokens too.
func Type(present bool, typ string) string {
	switch {
	case !present:
		return "the token has no typ: send an access token, not an ID token; if the issuer's access tokens have none, this API's TokenTypes must hold the empty string"
	case typ == "" || typ == "jwt":
		return "the token's typ is not that of an access token: send an access token, not an ID token"
	}
	return "the token's typ is not one that this API accepts: if the issuer marks access tokens so, this API's TokenTypes must name it"
}

func sameButForSpelling(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "/"), strings.TrimSuffix(b, "/"))
}
