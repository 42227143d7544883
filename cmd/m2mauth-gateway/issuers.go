package main

import (
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/issuers"
	"go.yaml.in/yaml/v4"
)

// issuerSettings are the fields of m2mauth.Config that are data and belong to one issuer,
// under the same names, and what a preset brings.
type issuerSettings struct {
	Name   string  `yaml:"name"`
	Preset *preset `yaml:"preset"`

	Issuer                          string              `yaml:"issuer"`
	Audience                        string              `yaml:"audience"`
	OtherAudiences                  []string            `yaml:"other_audiences"`
	JWKSURL                         string              `yaml:"jwks_url"`
	JWKS                            string              `yaml:"jwks"`
	InsecureHTTPHosts               []string            `yaml:"insecure_http_hosts"`
	Algorithms                      []string            `yaml:"algorithms"`
	TokenTypes                      []string            `yaml:"token_types"`
	ScopeClaims                     []string            `yaml:"scope_claims"`
	ScopePrefix                     string              `yaml:"scope_prefix"`
	ScopeOrganization               string              `yaml:"scope_organization"`
	ImpliedScopes                   map[string][]string `yaml:"implied_scopes"`
	ClientClaims                    []string            `yaml:"client_claims"`
	OrganizationClaims              []string            `yaml:"organization_claims"`
	RequiredClaims                  claimValues         `yaml:"required_claims"`
	AllowMissingSubject             bool                `yaml:"allow_missing_subject"`
	ClientsWithoutAudience          []string            `yaml:"clients_without_audience"`
	Leeway                          time.Duration       `yaml:"leeway"`
	MaxLifetime                     time.Duration       `yaml:"max_lifetime"`
	KeyTTL                          time.Duration       `yaml:"key_ttl"`
	KeyStaleFor                     time.Duration       `yaml:"key_stale_for"`
	FetchTimeout                    time.Duration       `yaml:"fetch_timeout"`
	InsecureAllowOrganizationTokens bool                `yaml:"insecure_allow_organization_tokens"`
}

// claimValues are the values of claims. The word any is every value.
type claimValues map[string][]string

func (c *claimValues) read(r *reader, path string, n *yaml.Node) {
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		r.add(path, "must be a mapping of claims to lists of values, or to the word any")
		return
	}
	*c = make(claimValues)
	r.pairs(path, n, func(name, inner string, value *yaml.Node) {
		if value.Kind == yaml.ScalarNode {
			if value.Value != "any" {
				r.add(inner, "must be a list of values, or the word any")
			}
			(*c)[name] = []string{m2mauth.AnyValue}
			return
		}
		var list []string
		r.value(inner, value, reflect.ValueOf(&list).Elem())
		(*c)[name] = list
	})
}

// preset is a function of package issuers, with its arguments by their names.
type preset struct {
	name      string
	arguments map[string][]string
}

func (p *preset) read(r *reader, path string, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		r.add(path, "must be a mapping with the preset's name, and its arguments")
		return
	}
	p.arguments = make(map[string][]string)
	r.pairs(path, n, func(name, inner string, value *yaml.Node) {
		var w words
		w.read(r, inner, value)
		p.arguments[name] = w
	})
	name := p.arguments["name"]
	delete(p.arguments, "name")
	if len(name) != 1 || presets[name[0]].make == nil {
		r.add(path, "name must be one of %s", strings.Join(slices.Sorted(maps.Keys(presets)), ", "))
		return
	}
	p.name = name[0]
	kind := presets[p.name]
	for _, argument := range slices.Sorted(maps.Keys(p.arguments)) {
		values := p.arguments[argument]
		switch {
		case argument == kind.list:
		case !slices.Contains(kind.single, argument):
			r.add(path+"."+argument, "is no argument of %s: it takes %s", p.name, kind.takes())
		case len(values) != 1:
			r.add(path+"."+argument, "must be one value")
		}
	}
}

// presetKind is a function of package issuers: the names of its arguments as in Go, in
// lower case and with underscores, and a call of it.
type presetKind struct {
	single []string
	list   string
	make   func(one []string, list []string) (m2mauth.Config, error)
}

func (k presetKind) takes() string {
	return strings.Join(slices.DeleteFunc(append(slices.Clone(k.single), k.list), func(name string) bool { return name == "" }), ", ")
}

func (p *preset) config() (m2mauth.Config, error) {
	kind, ok := presets[p.name]
	if !ok {
		return m2mauth.Config{}, nil // reading it found the mistake
	}
	single := make([]string, len(kind.single))
	for i, name := range kind.single {
		single[i] = strings.Join(p.arguments[name], "")
	}
	return kind.make(single, p.arguments[kind.list])
}

func ofTwo(first, second string, f func(a, b string) (m2mauth.Config, error)) presetKind {
	return presetKind{[]string{first, second}, "", func(one, _ []string) (m2mauth.Config, error) { return f(one[0], one[1]) }}
}

func ofTwoAndList(first, second, list string, f func(a, b string, all ...string) (m2mauth.Config, error)) presetKind {
	return presetKind{[]string{first, second}, list, func(one, all []string) (m2mauth.Config, error) { return f(one[0], one[1], all...) }}
}

func ofOneAndList(first, list string, f func(a string, all ...string) (m2mauth.Config, error)) presetKind {
	return presetKind{[]string{first}, list, func(one, all []string) (m2mauth.Config, error) { return f(one[0], all...) }}
}

// presets have the names of the command m2mauth's --issuer-kind.
var presets = map[string]presetKind{
	"auth0":          ofTwo("tenant_domain", "audience", issuers.Auth0),
	"authentik":      ofTwo("issuer", "client_id", issuers.Authentik),
	"cognito":        ofTwoAndList("user_pool_id", "resource_server", "clients", issuers.Cognito),
	"duende":         ofTwo("issuer", "audience", issuers.Duende),
	"entra-id":       ofTwo("tenant_id", "application_id", issuers.EntraID),
	"entra-id-v1":    ofTwo("tenant_id", "audience", issuers.EntraIDv1),
	"github-actions": ofOneAndList("audience", "owner_ids", issuers.GitHubActions),
	"google":         ofOneAndList("audience", "account_ids", issuers.GoogleServiceAccounts),
	"hydra":          ofTwo("issuer", "audience", issuers.Hydra),
	"keycloak":       ofTwo("realm_url", "audience", issuers.Keycloak),
	"kubernetes":     ofTwoAndList("issuer", "audience", "account_uids", issuers.KubernetesServiceAccounts),
	"logto":          ofTwo("endpoint", "audience", issuers.Logto),
	"logto-cloud":    ofTwo("tenant_id", "audience", issuers.LogtoCloud),
	"logto-organizations": {[]string{"endpoint"}, "", func(one, _ []string) (m2mauth.Config, error) {
		return issuers.LogtoOrganizations(one[0])
	}},
	"okta":       ofTwo("issuer", "audience", issuers.Okta),
	"openiddict": ofTwo("issuer", "audience", issuers.OpenIddict),
	"pingone":    ofTwo("issuer", "audience", issuers.PingOne),
	"spring":     ofTwo("issuer", "audience", issuers.SpringAuthorizationServer),
	"zitadel": {[]string{"issuer", "project_id", "organization_id"}, "service_account_ids", func(one, all []string) (m2mauth.Config, error) {
		return issuers.Zitadel(one[0], one[1], one[2], all...)
	}},
}

// config returns the Config that an entry makes: the preset's, and in its place what the
// entry says. Claims that are required are added to the preset's.
func (i *issuerSettings) config(s *settings, path string) (c m2mauth.Config) {
	r := s.reader
	if i.Preset != nil {
		made, err := i.Preset.config()
		if err != nil {
			for _, one := range errorsIn(err) {
				r.add(path+".preset", "%v", one)
			}
		}
		c = made
		if i.Issuer != "" || i.Audience != "" {
			r.add(path, "issuer and audience are those of the preset: give them as its arguments")
		}
	}
	required := maps.Clone(c.RequiredClaims)
	from, to := reflect.ValueOf(*i), reflect.ValueOf(&c).Elem()
	for n := range from.NumField() {
		field := to.FieldByName(from.Type().Field(n).Name)
		if field.IsValid() && !from.Field(n).IsZero() {
			field.Set(from.Field(n).Convert(field.Type()))
		}
	}
	c.RequiredClaims = required
	for name, values := range i.RequiredClaims {
		if _, twice := required[name]; twice {
			r.add(path+".required_claims."+name, "is a claim that the preset requires already")
			continue
		}
		if c.RequiredClaims == nil {
			c.RequiredClaims = make(map[string][]string)
		}
		c.RequiredClaims[name] = values
	}
	c.TokenTypes = slices.Clone(c.TokenTypes)
	for n, t := range c.TokenTypes {
		if t == "none" { // as in the environment: a token without typ
			c.TokenTypes[n] = ""
		}
	}
	c.CacheBytes, c.MaxTokenBytes, c.Realm, c.InsecureReportOnlyUntil = s.Limits.CacheBytes, s.Limits.MaxTokenBytes, s.Realm, s.ReportOnly
	return c
}

// errorsIn returns the mistakes that were joined.
func errorsIn(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, one := range joined.Unwrap() {
			all = append(all, errorsIn(one)...)
		}
		return all
	}
	return []error{err}
}

var configField = regexp.MustCompile(`^m2mauth: Config\.(\w+)`)

// placeOf finds the setting that a mistake of m2mauth.New is about, for its line.
func (s *settings) placeOf(path string, err error) string {
	named := configField.FindStringSubmatch(err.Error())
	if named == nil {
		return path
	}
	for where, t := range map[string]reflect.Type{path + ".": reflect.TypeFor[issuerSettings](), "limits.": reflect.TypeFor[limits](), "": reflect.TypeFor[settings]()} {
		if field, ok := t.FieldByName(strings.Replace(named[1], "InsecureReportOnlyUntil", "ReportOnly", 1)); ok && field.Tag.Get("yaml") != "" {
			if at := where + field.Tag.Get("yaml"); s.reader.lines[at] > 0 || s.reader.variables[at] != "" {
				return at
			}
		}
	}
	return path
}

// nameOf is what an issuer is called in rows, logs and metrics.
func (i *issuerSettings) nameOf(c m2mauth.Config) string {
	if i.Name != "" {
		return i.Name
	}
	return c.Issuer
}

// key is equal for two entries whose guards are the same.
func (i *issuerSettings) key(s *settings) string {
	p := "none"
	if i.Preset != nil {
		p = fmt.Sprintf("%q %q", i.Preset.name, i.Preset.arguments)
	}
	own := *i
	own.Preset, own.Name = nil, ""
	return fmt.Sprintf("%s %#v %d %d %q %s", p, own, s.Limits.CacheBytes, s.Limits.MaxTokenBytes, s.Realm, s.ReportOnly)
}
