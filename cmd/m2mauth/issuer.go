package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/m2mauth/m2mauth/m2mauthtest"
)

// issuerCommand runs the issuer of m2mauthtest as a server.
type issuerCommand struct {
	Listen       string `default:"127.0.0.1:9400" help:"Where to listen. It is part of the issuer's identifier. Port 0 picks a free port. Default: ${default}." placeholder:"HOST:PORT"`
	AllowNetwork bool   `help:"Listen on another address than loopback. Over plain http, tokens and secrets can then be read on the way."`

	File         string   `help:"Take resources, roles, apps and organizations from a JSON file too." placeholder:"FILE" group:"What there is"`
	Resource     []string `sep:"none" help:"An API resource and its scopes, such as 'https://api.example.com read:products write:products'. Can be repeated, as all of these." placeholder:"'URI SCOPE …'" group:"What there is"`
	Role         []string `sep:"none" help:"A role, a resource, and the scopes of it that the role grants." placeholder:"'NAME URI SCOPE …'" group:"What there is"`
	App          []string `sep:"none" help:"An app and its roles. Its ID and its secret are made up." placeholder:"'NAME ROLE …'" group:"What there is"`
	Organization []string `sep:"none" help:"An organization." placeholder:"ID" group:"What there is"`
	OrgRole      []string `sep:"none" name:"organization-role" help:"A role in organizations, a resource, and the scopes of it that the role grants. '-' for the resource: permissions of the organization itself." placeholder:"'NAME URI SCOPE …'" group:"What there is"`
	Member       []string `sep:"none" help:"An app in an organization, and its roles there." placeholder:"'ID APP ROLE …'" group:"What there is"`

	JSON bool `name:"json" help:"Print one JSON object, for scripts."`
}

// Help is shown below the flags.
func (issuerCommand) Help() string {
	return `For local work alone, so that a team needs no server. It answers as Logto does, to the client credentials grant. If no app is given, there is one that is named app and gets all scopes. Secrets that were made up are printed once, here on standard output, and change with every start; give your own in --file if they shall stay. Keys change with every start too.

--file is an object with these members, each of which may be left out:
{"resources":[{"indicator":"https://api.example.com","scopes":["read:products"],"token_lifetime":"1h"}],
"default_resource":"https://api.example.com",
"roles":[{"name":"reader","resource":"https://api.example.com","scopes":["read:products"]}],
"apps":[{"name":"billing","id":"billing","secret":"for-local-work","roles":["reader"]}],
"organizations":["acme"],
"organization_roles":[{"name":"buyer","resource":"https://api.example.com","scopes":["read:products"]}],
"members":[{"organization":"acme","app":"billing","roles":["buyer"]}]}

--json has issuer, token_url, audience, and apps, each with name, id and secret.

It ends on SIGINT or SIGTERM.`
}

// tenant is what the issuer knows.
type tenant struct {
	Resources         []tenantResource `json:"resources"`
	DefaultResource   string           `json:"default_resource"`
	Roles             []tenantRole     `json:"roles"`
	Apps              []tenantApp      `json:"apps"`
	Organizations     []string         `json:"organizations"`
	OrganizationRoles []tenantRole     `json:"organization_roles"`
	Members           []tenantMember   `json:"members"`
}

type tenantResource struct {
	Indicator     string   `json:"indicator"`
	Scopes        []string `json:"scopes"`
	TokenLifetime string   `json:"token_lifetime"` // "": an hour
}

// tenantRole grants scopes of a resource. Two with one name are one role.
type tenantRole struct {
	Name     string   `json:"name"`
	Resource string   `json:"resource"`
	Scopes   []string `json:"scopes"`
}

type tenantApp struct {
	Name   string   `json:"name"`
	ID     string   `json:"id"`
	Secret string   `json:"secret"`
	Roles  []string `json:"roles"`
}

type tenantMember struct {
	Organization string   `json:"organization"`
	App          string   `json:"app"` // its name
	Roles        []string `json:"roles"`
}

// Run serves until the command is ended.
func (c *issuerCommand) Run(e *environment) error {
	t, err := c.tenant()
	if err != nil {
		return usageError{err}
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return usageError{fmt.Errorf("--listen %s is not HOST:PORT", c.Listen)}
	}
	if !c.AllowNetwork && !isLoopback(c.Listen) {
		return usageError{fmt.Errorf("--listen %s is not on loopback: this issuer is for local work; --allow-network listens there nevertheless", c.Listen)}
	}
	issuer, err := m2mauthtest.ListenIssuer(c.Listen)
	if err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "m2mauthtest: "))
	}
	defer issuer.Close()
	apps, err := t.setUp(issuer)
	if err != nil {
		return usageError{err}
	}
	fmt.Fprintln(e.stderr, "m2mauth: warning: this issuer is for development alone: never let an API that matters trust it")
	if !isLoopback(c.Listen) {
		fmt.Fprintln(e.stderr, "m2mauth: warning: it is not on loopback: over plain http, tokens and secrets can be read on the way, and APIs need InsecureHTTPHosts")
	}
	var out bytes.Buffer
	s := t.started(issuer, apps)
	if c.JSON {
		err = writeJSON(&out, s)
	} else {
		s.writeText(&out)
	}
	if err != nil {
		return err
	}
	if _, err := io.WriteString(e.stdout, printable(out.String())); err != nil {
		return err
	}
	<-e.Done()
	return nil
}

// isLoopback reports whether only this machine reaches an address.
func isLoopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// tenant reads the file and the flags.
func (c *issuerCommand) tenant() (t tenant, err error) {
	if c.File != "" {
		data, err := readFile(c.File)
		if err != nil {
			return t, err
		}
		if err := json.Unmarshal(data, &t, json.RejectUnknownMembers(true)); err != nil {
			return t, fmt.Errorf("--file %s: %w", c.File, err)
		}
	}
	var mistakes []error
	each := func(flag string, values []string, least int, take func(words []string)) {
		for _, value := range values {
			if words := strings.Fields(value); len(words) >= least {
				take(words)
			} else {
				mistakes = append(mistakes, fmt.Errorf("--%s %q has too few words: quote them together, as m2mauth issuer --help shows", flag, value))
			}
		}
	}
	each("resource", c.Resource, 1, func(w []string) {
		t.Resources = append(t.Resources, tenantResource{Indicator: w[0], Scopes: w[1:]})
	})
	each("role", c.Role, 2, func(w []string) { t.Roles = append(t.Roles, tenantRole{w[0], w[1], w[2:]}) })
	each("app", c.App, 1, func(w []string) { t.Apps = append(t.Apps, tenantApp{Name: w[0], Roles: w[1:]}) })
	each("organization", c.Organization, 1, func(w []string) { t.Organizations = append(t.Organizations, w...) })
	each("organization-role", c.OrgRole, 2, func(w []string) {
		t.OrganizationRoles = append(t.OrganizationRoles, tenantRole{w[0], strings.TrimPrefix(w[1], "-"), w[2:]})
	})
	each("member", c.Member, 2, func(w []string) { t.Members = append(t.Members, tenantMember{w[0], w[1], w[2:]}) })
	if len(t.Resources) == 0 && len(mistakes) == 0 {
		mistakes = append(mistakes, errors.New("no resource: name the API, such as --resource 'https://api.example.com read:products'"))
	}
	if len(t.Apps) == 0 { // so that one flag is enough
		const all = "all scopes"
		for _, r := range t.Resources {
			t.Roles = append(t.Roles, tenantRole{all, r.Indicator, r.Scopes})
		}
		t.Apps = []tenantApp{{Name: "app", Roles: []string{all}}}
	}
	return t, errors.Join(mistakes...)
}

// setUp tells the issuer what it knows. The kit panics at the first mistake, which here is
// a user's and not a test's.
func (t *tenant) setUp(issuer *m2mauthtest.Issuer) (apps []m2mauthtest.App, err error) {
	defer func() {
		if r := recover(); r != nil {
			said, _ := r.(string)
			text, ok := strings.CutPrefix(said, "m2mauthtest: ")
			if !ok {
				panic(r)
			}
			_, text, _ = strings.Cut(text, ": ") // the method
			err = errors.New(text)
		}
	}()
	for _, r := range t.Resources {
		issuer.AddResource(r.Indicator, r.Scopes...)
		if r.TokenLifetime != "" {
			d, err := time.ParseDuration(r.TokenLifetime)
			if err != nil {
				return nil, fmt.Errorf("token_lifetime %q is not a duration such as 10m", r.TokenLifetime)
			}
			issuer.SetTokenLifetime(r.Indicator, d)
		}
	}
	issuer.SetDefaultResource(t.DefaultResource)
	for _, r := range t.Roles {
		issuer.AddRole(r.Name, r.Resource, r.Scopes...)
	}
	ids := make(map[string]string)
	for _, a := range t.Apps {
		if a.Name == "" {
			return nil, errors.New("an app has no name")
		}
		app := issuer.RegisterApp(m2mauthtest.App{Name: a.Name, ID: a.ID, Secret: a.Secret}, a.Roles...)
		ids[a.Name] = app.ID
		apps = append(apps, app)
	}
	for _, id := range t.Organizations {
		issuer.AddOrganization(id)
	}
	for _, r := range t.OrganizationRoles {
		issuer.AddOrganizationRole(r.Name, r.Resource, r.Scopes...)
	}
	for _, m := range t.Members {
		if ids[m.App] == "" {
			return nil, fmt.Errorf("the member %q of the organization %q is no app", m.App, m.Organization)
		}
		issuer.AddToOrganization(m.Organization, ids[m.App], m.Roles...)
	}
	return apps, nil
}

// started is what a user needs to know of the issuer.
type started struct {
	Issuer   string       `json:"issuer"`
	TokenURL string       `json:"token_url"`
	Audience string       `json:"audience"` // the first resource
	Apps     []startedApp `json:"apps"`
}

type startedApp struct {
	Name   string `json:"name"`
	ID     string `json:"id"`
	Secret string `json:"secret"`

	resource, scope string // what the curl line asks for
}

func (t *tenant) started(issuer *m2mauthtest.Issuer, apps []m2mauthtest.App) started {
	s := started{Issuer: issuer.URL(), TokenURL: issuer.TokenURL(), Audience: cmp.Or(t.DefaultResource, t.Resources[0].Indicator)}
	for i, a := range apps {
		resource, scope := t.grants(t.Apps[i].Roles)
		s.Apps = append(s.Apps, startedApp{a.Name, a.ID, a.Secret, cmp.Or(resource, s.Audience), scope})
	}
	return s
}

// grants returns a resource of which the roles grant scopes, and these.
func (t *tenant) grants(roles []string) (resource, scope string) {
	for _, name := range roles {
		for _, r := range t.Roles {
			if r.Name == name && len(r.Scopes) > 0 {
				return r.Resource, strings.Join(r.Scopes, " ")
			}
		}
	}
	return "", ""
}

func (s started) writeText(w io.Writer) {
	fmt.Fprintf(w, "# for the API\nexport M2MAUTH_ISSUER=%s\nexport M2MAUTH_AUDIENCE=%s\n", quoted(s.Issuer), quoted(s.Audience))
	for _, a := range s.Apps {
		// A pair in the header would have to be form-encoded first (RFC 6749 §2.3.1).
		fmt.Fprintf(w, "\n# a token for the app %s\ncurl -s %s -d grant_type=client_credentials", strings.Join(strings.Fields(a.Name), " "), quoted(s.TokenURL))
		for _, p := range [][2]string{{"client_id", a.ID}, {"client_secret", a.Secret}, {"resource", a.resource}, {"scope", a.scope}} {
			if p[1] != "" {
				fmt.Fprintf(w, " --data-urlencode %s", quoted(p[0]+"="+p[1]))
			}
		}
		fmt.Fprintln(w)
	}
}

// quoted returns a word of a POSIX shell.
func quoted(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:/.,@%") == "" && s != "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
