package issuers

import (
	"slices"

	"github.com/m2mauth/m2mauth"
)

// chosen says why a list of those who are trusted cannot be empty.
const chosen = "the caller chooses the audience, so without them anybody could call the API"

// GitHubActions is for jobs of GitHub Actions, whose token has the audience that the
// job asks for. It accepts the repositories of the given owners, users or
// organizations, by their numeric IDs, which a renamed or recycled name does not
// change. Claims.AppID is the repository's numeric ID.
//
// There are no scopes: name the repositories with [m2mauth.ClientID], and what else
// a job must show with [m2mauth.HasClaim], such as ref or environment. Whoever may
// push a branch to a repository of the owner runs a job there.
func GitHubActions(audience string, ownerIDs ...string) (m2mauth.Config, error) {
	a := arguments{function: "GitHubActions"}
	a.text("audience", audience, "a name of the API that its callers ask for, such as https://shopping.api")
	a.forms("ownerIDs", ownerIDs, digits, "the numeric IDs of the repositories' owners, as https://api.github.com/users/NAME shows them", chosen)
	return a.config(m2mauth.Config{
		Issuer:         "https://token.actions.githubusercontent.com",
		Audience:       audience,
		Algorithms:     []string{"RS256"},
		TokenTypes:     []string{"JWT"},
		ClientClaims:   []string{"repository_id"},
		RequiredClaims: map[string][]string{"repository_owner_id": slices.Clone(ownerIDs)},
		IsMachine:      always,
	})
}

// GoogleServiceAccounts is for ID tokens of Google service accounts, which have the
// audience that the account asks for. It accepts the accounts with the given unique
// IDs, which are sub, and are not used again as an account's email address may be.
// Claims.AppID is the unique ID. There are no scopes: use [m2mauth.ClientID].
func GoogleServiceAccounts(audience string, accountIDs ...string) (m2mauth.Config, error) {
	a := arguments{function: "GoogleServiceAccounts"}
	a.text("audience", audience, "a name of the API that its callers ask for, such as https://shopping.api")
	a.forms("accountIDs", accountIDs, digits, "the numeric unique IDs of service accounts, not their email addresses", chosen)
	return a.config(m2mauth.Config{
		Issuer:         "https://accounts.google.com",
		JWKSURL:        "https://www.googleapis.com/oauth2/v3/certs", // on another origin
		Audience:       audience,
		Algorithms:     []string{"RS256"},
		TokenTypes:     []string{"JWT"},
		ClientClaims:   []string{"sub"},
		RequiredClaims: map[string][]string{"sub": slices.Clone(accountIDs)},
		IsMachine:      always,
	})
}

// KubernetesServiceAccounts is for tokens of Kubernetes service accounts, which have
// the audience that a pod's projected volume asks for. The issuer is the cluster's
// --service-account-issuer. It accepts the accounts with the given UIDs: a name can be
// deleted and made again by whoever has the namespace. Claims.AppID is sub,
// system:serviceaccount:NAMESPACE:NAME. There are no scopes: use [m2mauth.ClientID].
//
// Where the API server answers discovery to authenticated callers alone, or under
// another address, set Config.HTTPClient, Config.JWKSURL or Config.JWKS.
func KubernetesServiceAccounts(issuer, audience string, accountUIDs ...string) (m2mauth.Config, error) {
	a := arguments{function: "KubernetesServiceAccounts"}
	a.url("issuer", issuer, "https://kubernetes.default.svc.cluster.local")
	a.text("audience", audience, "a name of the API that its callers ask for, such as https://shopping.api")
	a.forms("accountUIDs", accountUIDs, guid, "the UIDs of service accounts, not their names: kubectl get serviceaccount NAME -o jsonpath={.metadata.uid}", chosen)
	return a.config(m2mauth.Config{
		Issuer:         issuer,
		Audience:       audience,
		TokenTypes:     []string{""},
		ClientClaims:   []string{"sub"},
		RequiredClaims: map[string][]string{"/kubernetes.io/serviceaccount/uid": slices.Clone(accountUIDs)},
		IsMachine:      always,
	})
}
