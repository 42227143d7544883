package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/m2mauth/m2mauth"
)

// narrow adds to a row what the file adds to it: the issuer, the clients and the
// organization that it is for. Client and organization IDs are unique only within one
// issuer. So with several issuers, a row that has one names its issuer.
func (r *row) narrow(s *rowSettings, issuers []*trusted) error {
	if s.Issuer == "" && s.Client == nil && s.Organization == "" {
		return nil
	}
	if r.public {
		return fmt.Errorf("a public row cannot name an issuer, a client or an organization: a token is not looked at")
	}
	if len(issuers) > 1 && s.Issuer == "" {
		return fmt.Errorf("a row that names a client or an organization must name its issuer too, since another issuer can give out the same ID: add issuer")
	}
	parts := []m2mauth.Rule{r.rule}
	if s.Issuer != "" {
		i := slices.IndexFunc(issuers, func(t *trusted) bool { return t.name == s.Issuer || t.issuer == s.Issuer })
		if i < 0 {
			return fmt.Errorf("issuer: %q is none of the issuers: give the name or the URL of one", s.Issuer)
		}
		parts = append(parts, m2mauth.HasClaim("iss", issuers[i].issuer))
		r.issuer = issuers[i].issuer
		r.narrowed += " issuer " + r.issuer
	}
	if s.Client != nil {
		if slices.Contains(s.Client, "") {
			return fmt.Errorf("client: a client's ID is empty")
		}
		parts = append(parts, m2mauth.ClientID(s.Client...))
		r.narrowed += fmt.Sprintf(" client %q", []string(s.Client))
	}
	if s.Organization != "" {
		rule, err := r.organization(s.Organization)
		if err != nil {
			return err
		}
		parts = append(parts, rule)
		r.narrowed += fmt.Sprintf(" organization %q", s.Organization)
	}
	r.rule = m2mauth.AllOf(parts...)
	return nil
}

// organization returns the rule for one organization, or for the one that a wildcard of
// the path names.
func (r *row) organization(id string) (m2mauth.Rule, error) {
	if !strings.ContainsAny(id, "{}") {
		return m2mauth.Organization(func(m2mauth.Request) string { return id }), nil
	}
	name := strings.TrimSuffix(strings.TrimPrefix(id, "{"), "}")
	count := 0
	for _, s := range r.pattern {
		if s.wildcard && !s.rest && "{"+s.name+"}" == id {
			count++
		}
	}
	if count != 1 {
		return m2mauth.Rule{}, fmt.Errorf("organization: the path must have %s once, as a wildcard for one segment", id)
	}
	return m2mauth.OrganizationPath(name), nil
}

// value returns what a wildcard of the row stands for in a path that the row matches.
func (r *row) value(name string, path []string) string {
	for i, s := range r.pattern {
		if s.wildcard && !s.rest && s.name == name && i < len(path) {
			decoded, err := url.PathUnescape(path[i])
			if err != nil {
				return ""
			}
			return decoded
		}
	}
	return ""
}
