package openapiauth

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/m2mauth/m2mauth"
)

var (
	// scopeForm is scope-token of RFC 6749 §3.3.
	scopeForm = regexp.MustCompile(`^[\x21\x23-\x5B\x5D-\x7E]+$`)

	// httpSchemeForm is token of RFC 9110 §5.6.2.
	httpSchemeForm = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

	schemeTypes = []string{"apiKey", "http", "mutualTLS", "oauth2", "openIdConnect"}
)

// requirements is the security that holds for an operation.
type requirements struct {
	list    openapi3.SecurityRequirements
	pointer string
	place   string
}

// demand makes a rule of what the document says about an operation. After a mistake it
// returns the zero Rule, which lets nobody through.
func (b *builder) demand(op *operation) (rule m2mauth.Rule, public bool) {
	s := requirements{pointer: op.pointer + "/security", place: op.String() + ": security"}
	switch {
	case op.Security != nil:
		s.list = *op.Security
	case b.document.defaultSize > 0:
		if b.document.budget -= b.document.defaultSize; b.document.budget < 0 {
			b.mistakes.add(op.line, limited(op.String()), "the document is too large: its security counts anew for each operation without its own, with at most %d values in all", maxNodes)
			return m2mauth.Rule{}, false
		}
		s = requirements{list: b.document.model.Security, pointer: "/security", place: op.String() + ": security of the document"}
	case op.means(listPublic):
		return m2mauth.Rule{}, true
	default:
		b.mistakes.add(op.line, limited(op.String()), "it has no security, and the document has none either: add it, write security: [] to make it public, or name it in %s", listPublic)
		return m2mauth.Rule{}, false
	}
	var rules []m2mauth.Rule
	open := len(s.list) == 0
	wrong := false
	for i, alternative := range s.list {
		parts, ok := b.alternative(op, s, i, alternative)
		switch {
		case !ok:
			wrong = true
		case len(parts) == 0:
			open = true
		case len(parts) == 1:
			rules = append(rules, parts[0])
		default:
			rules = append(rules, m2mauth.AllOf(parts...))
		}
	}
	switch {
	case wrong:
		return m2mauth.Rule{}, false
	case len(rules) == 0:
		return m2mauth.Rule{}, open
	case len(rules) == 1:
		rule = rules[0]
	default:
		rule = m2mauth.AnyOf(rules...)
	}
	if open {
		rule = m2mauth.Optional(rule)
	}
	return rule, false
}

// alternative returns what all of a requirement's schemes require together. None of
// them, without a mistake, is what lets everyone through.
func (b *builder) alternative(op *operation, s requirements, n int, schemes openapi3.SecurityRequirement) (parts []m2mauth.Rule, ok bool) {
	line := b.document.lines[fmt.Sprintf("%s/%d", s.pointer, n)]
	place := limited(fmt.Sprintf("%s[%d]", s.place, n))
	if len(schemes) == 0 {
		list := listOptional
		if !slices.ContainsFunc(s.list, func(r openapi3.SecurityRequirement) bool { return len(r) > 0 }) {
			list = listPublic // there is no other alternative
		}
		if !op.means(list) {
			b.mistakes.add(line, place, "{} lets requests without credentials through: take it out, or name the operation in %s", list)
		}
		return nil, true
	}
	ok = true
	for _, name := range slices.Sorted(maps.Keys(schemes)) {
		rule, required, err := b.scheme(op, name, schemes[name])
		switch {
		case err != nil:
			ok = false
			b.mistakes.add(line, place+": "+limited(name), "%v", err)
		case required:
			parts = append(parts, rule)
		}
	}
	return parts, ok
}

// scheme returns what a scheme requires with a list of scopes. It is not required here
// if Options says that something else checks it.
func (b *builder) scheme(op *operation, name string, scopes []string) (rule m2mauth.Rule, required bool, err error) {
	var scheme *openapi3.SecurityScheme
	if components := b.document.model.Components; components != nil && components.SecuritySchemes[name] != nil {
		scheme = components.SecuritySchemes[name].Value
	}
	if scheme == nil {
		return rule, false, errors.New("there is no such scheme in components.securitySchemes")
	}
	bearer := scheme.Type == "http" && strings.EqualFold(scheme.Scheme, "bearer")
	switch {
	// A misspelled scheme is not one that Options.Elsewhere means.
	case !slices.Contains(schemeTypes, scheme.Type):
		return rule, false, fmt.Errorf("the scheme has the type %s, which OpenAPI does not have", quote(scheme.Type))
	case scheme.Type == "http" && !httpSchemeForm.MatchString(scheme.Scheme):
		return rule, false, fmt.Errorf("%s is no authentication scheme of HTTP (RFC 9110 §11.1)", quote(scheme.Scheme))
	case scheme.Type == "oauth2" || scheme.Type == "openIdConnect":
	case bearer && len(scopes) > 0:
		// OpenAPI 3.1 calls them roles "not otherwise defined or exchanged in-band":
		// whatever they are, a token does not say that its bearer has them.
		return rule, false, fmt.Errorf("%s: bearer tokens of type http have no scopes: declare the scheme as oauth2 or openIdConnect", quote(strings.Join(scopes, " ")))
	case bearer:
	case op.means(listElsewhere):
		return rule, false, nil
	default:
		return rule, false, fmt.Errorf("a token cannot meet a scheme of the type %s: if something else checks it, name the operation in %s", typeOf(scheme), listElsewhere)
	}
	if len(scopes) == 0 {
		if !op.means(listAnyToken) {
			return rule, false, fmt.Errorf("no scope: any valid token would do, which is no permission: name scopes, or the operation in %s", listAnyToken)
		}
		return m2mauth.AnyToken(), true, nil
	}
	for _, scope := range scopes {
		switch {
		case !scopeForm.MatchString(scope):
			return rule, false, fmt.Errorf("%s cannot be a scope (RFC 6749 §3.3): write each scope as an entry of its own", quote(scope))
		case scheme.Type == "oauth2" && !declares(scheme.Flows, scope):
			return rule, false, fmt.Errorf("the scope %s is in no flow of the scheme", quote(scope))
		}
	}
	return m2mauth.AllScopes(scopes...), true, nil
}

func typeOf(s *openapi3.SecurityScheme) string {
	if s.Type == "http" {
		return limited("http, scheme " + s.Scheme)
	}
	return quote(s.Type)
}

func declares(flows *openapi3.OAuthFlows, scope string) bool {
	if flows == nil {
		return false
	}
	for _, flow := range []*openapi3.OAuthFlow{flows.AuthorizationCode, flows.ClientCredentials, flows.Implicit, flows.Password} {
		if flow != nil {
			if _, ok := flow.Scopes[scope]; ok {
				return true
			}
		}
	}
	return false
}
