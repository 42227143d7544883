package m2mauthtest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// App is a machine-to-machine app, with what a client needs to get a token.
type App struct {
	Name   string
	ID     string // 21 characters of a to z and 0 to 9, like Logto's
	Secret string
}

// AddResource registers an API resource and its scopes (permissions). The indicator is
// the resource parameter of token requests and the aud of their tokens. It is never
// normalized: with and without a trailing slash are two resources.
//
// It panics if the indicator is empty or registered already, or if a scope is empty,
// is given twice, or has white space, which Logto refuses.
func (i *Issuer) AddResource(indicator string, scopes ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if indicator == "" || i.tenant.resources[indicator] != nil {
		mistake("AddResource", "the resource %q is empty or exists already", indicator)
	}
	for n, scope := range scopes {
		if scope == "" || strings.ContainsFunc(scope, unicode.IsSpace) {
			mistake("AddResource", "the scope %q is empty or has white space", scope)
		}
		if slices.Contains(scopes[:n], scope) {
			mistake("AddResource", "the scope %q is given twice", scope)
		}
	}
	i.tenant.resources[indicator] = &resource{scopes: slices.Clone(scopes), lifetime: time.Hour}
}

// AddRole defines a machine-to-machine role that grants scopes of a resource. Called
// again with the same name, it adds scopes to the role, also those of another
// resource. Apps that have the role get them with their next token.
//
// It panics if the resource or one of its scopes is unknown, or if the role is for
// users.
func (i *Issuer) AddRole(name, resource string, scopes ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.tenant.addRole("AddRole", name, forApps, resource, scopes)
}

// AddUserRole defines a role for users, which no app can have. A test can use it to
// see that [Issuer.AddApp] refuses such a role, as Logto's Console does. AddUserRole
// panics as [Issuer.AddRole] does.
func (i *Issuer) AddUserRole(name, resource string, scopes ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.tenant.addRole("AddUserRole", name, forUsers, resource, scopes)
}

// AddApp registers a machine-to-machine app. An app without roles gets tokens for
// every resource, but without scopes.
//
// It panics if an app has that name already, or if a role is unknown or for users.
func (i *Issuer) AddApp(name string, roles ...string) App {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.tenant.addApp("AddApp", App{Name: name}, roles)
}

// RegisterApp is [Issuer.AddApp] for an app whose ID and secret are in somebody's settings
// already. What is empty is made up, and in the returned App.
//
// It panics as AddApp does, and if an app has that ID already.
func (i *Issuer) RegisterApp(app App, roles ...string) App {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.tenant.addApp("RegisterApp", app, roles)
}

// RemoveApp deletes an app. The app gets no more tokens. The tokens that it has stay
// valid. RemoveApp panics if no app has the ID.
func (i *Issuer) RemoveApp(id string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.tenant.apps[id] == nil {
		mistake("RemoveApp", "there is no app with the ID %q", id)
	}
	delete(i.tenant.apps, id)
}

// AddOrganization creates an organization. A token request names it in the parameter
// organization_id. With the parameter resource, the request gets a token for that API
// resource which is limited to the organization. Without it, the request gets an
// organization token, whose aud is urn:logto:organization:ID.
//
// It panics if the ID is empty or exists already.
func (i *Issuer) AddOrganization(id string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if id == "" || i.tenant.organizations[id] != nil {
		mistake("AddOrganization", "the organization %q is empty or exists already", id)
	}
	i.tenant.organizations[id] = map[string][]string{}
}

// AddOrganizationRole defines a machine-to-machine role that an app can have in an
// organization. It grants scopes of a resource there. If resource is "", the scopes are
// organization permissions, for organization tokens. Tokens list them in the order in
// which they were first defined. Called again with the same name, AddOrganizationRole
// adds scopes to the role.
//
// It panics if the resource or one of its scopes is unknown, or if a permission is
// empty or has white space.
func (i *Issuer) AddOrganizationRole(name, resource string, scopes ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.tenant.addOrganizationRole("AddOrganizationRole", name, resource, scopes)
}

// AddToOrganization makes an app a member of an organization, with roles from
// [Issuer.AddOrganizationRole]. Called again, it adds roles. A member without roles
// gets tokens too, but without scopes.
//
// It panics if the organization, the app or a role is unknown.
func (i *Issuer) AddToOrganization(organization, appID string, roles ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	members := i.tenant.organizations[organization]
	switch {
	case members == nil:
		mistake("AddToOrganization", "the organization %q is unknown", organization)
	case i.tenant.apps[appID] == nil:
		mistake("AddToOrganization", "there is no app with the ID %q", appID)
	}
	for _, role := range roles {
		if i.tenant.organizationRoles[role] == nil {
			mistake("AddToOrganization", "the organization role %q is unknown", role)
		}
	}
	members[appID] = append(members[appID], roles...)
}

// SetTokenLifetime sets how long tokens for a resource are valid if they come from the
// token endpoint, in whole seconds. The default is an hour. It panics if the resource
// is unknown or d is less than a second.
func (i *Issuer) SetTokenLifetime(resource string, d time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if d < time.Second {
		mistake("SetTokenLifetime", "%v is shorter than a second", d)
	}
	i.tenant.resource("SetTokenLifetime", resource).lifetime = d.Truncate(time.Second)
}

// SetDefaultResource sets the resource of token requests that name none, or
// with "" takes it away again. There is none by default, and such requests are
// refused. It panics if the resource is unknown.
func (i *Issuer) SetDefaultResource(indicator string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if indicator != "" {
		i.tenant.resource("SetDefaultResource", indicator)
	}
	i.tenant.defaultResource = indicator
}

// tenant is what an administrator set up. The issuer's mutex guards it.
type tenant struct {
	resources       map[string]*resource // by indicator
	roles           map[string]*role     // by name
	apps            map[string]*app      // by ID
	defaultResource string

	organizations     map[string]map[string][]string // by ID, the roles of members by their app ID
	organizationRoles map[string]grants              // by name
	permissions       []string                       // of organizations, in order
}

type resource struct {
	scopes   []string
	lifetime time.Duration
}

type role struct {
	kind   roleKind
	grants grants
}

// grants are scopes by indicator; organizations' own permissions are under "".
type grants map[string][]string

type roleKind string

const (
	forApps  roleKind = "machine-to-machine apps"
	forUsers roleKind = "users"
)

type app struct {
	App
	roles []string
}

func newTenant() tenant {
	return tenant{
		resources: map[string]*resource{},
		roles:     map[string]*role{},
		apps:      map[string]*app{},

		organizations:     map[string]map[string][]string{},
		organizationRoles: map[string]grants{},
	}
}

func (t *tenant) resource(method, indicator string) *resource {
	r := t.resources[indicator]
	if r == nil {
		mistake(method, "the resource %q is unknown", indicator)
	}
	return r
}

func (t *tenant) addApp(method string, a App, roles []string) App {
	a.ID = cmp.Or(a.ID, strings.ToLower(randomText())[:21])
	a.Secret = cmp.Or(a.Secret, randomText())
	for _, other := range t.apps {
		if other.Name == a.Name {
			mistake(method, "there is an app named %q already", a.Name)
		}
	}
	if t.apps[a.ID] != nil {
		mistake(method, "there is an app with the ID %q already", a.ID)
	}
	for _, role := range roles {
		switch r := t.roles[role]; {
		case r == nil:
			mistake(method, "the role %q is unknown", role)
		case r.kind != forApps:
			mistake(method, "the role %q is for users, not for machine-to-machine apps", role)
		}
	}
	t.apps[a.ID] = &app{App: a, roles: slices.Clone(roles)}
	return a
}

func (t *tenant) addRole(method, name string, kind roleKind, indicator string, scopes []string) {
	t.knowScopes(method, indicator, scopes)
	r := t.roles[name]
	if r == nil {
		r = &role{kind: kind, grants: grants{}}
		t.roles[name] = r
	}
	if r.kind != kind {
		mistake(method, "the role %q is for %s", name, r.kind)
	}
	r.grants[indicator] = append(r.grants[indicator], scopes...)
}

func (t *tenant) knowScopes(method, indicator string, scopes []string) {
	known := t.resource(method, indicator).scopes
	for _, scope := range scopes {
		if !slices.Contains(known, scope) {
			mistake(method, "the resource %q has no scope %q", indicator, scope)
		}
	}
}

func (t *tenant) addOrganizationRole(method, name, indicator string, scopes []string) {
	if indicator != "" {
		t.knowScopes(method, indicator, scopes)
	}
	for _, permission := range scopes {
		switch {
		case permission == "" || strings.ContainsFunc(permission, unicode.IsSpace):
			mistake(method, "the permission %q is empty or has white space", permission)
		case indicator == "" && !slices.Contains(t.permissions, permission):
			t.permissions = append(t.permissions, permission)
		}
	}
	if t.organizationRoles[name] == nil {
		t.organizationRoles[name] = grants{}
	}
	t.organizationRoles[name][indicator] = append(t.organizationRoles[name][indicator], scopes...)
}

// rolesOf returns what an app's roles grant. If the request names an organization,
// these are the app's roles there. Otherwise they are its roles in the tenant.
func (t *tenant) rolesOf(a *app, organization string) (all []grants) {
	if organization != "" {
		for _, name := range t.organizations[organization][a.ID] {
			all = append(all, t.organizationRoles[name])
		}
		return all
	}
	for _, name := range a.roles {
		all = append(all, t.roles[name].grants)
	}
	return all
}

// granted returns the requested scopes that the roles grant, each once, in the order
// of the request.
func granted(roles []grants, indicator string, asked []string) []string {
	var scopes []string
	for _, scope := range asked {
		grants := func(role grants) bool { return slices.Contains(role[indicator], scope) }
		if !slices.Contains(scopes, scope) && slices.ContainsFunc(roles, grants) {
			scopes = append(scopes, scope)
		}
	}
	return scopes
}

// mistake panics, since the test set the issuer up wrongly.
func mistake(method, format string, args ...any) {
	panic("m2mauthtest: " + method + ": " + fmt.Sprintf(format, args...))
}
