package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/m2mauth/m2mauth"
)

// generation is a whole configuration in force: guards, table and list. It never changes;
// a request that has begun with one ends with it.
type generation struct {
	settings *settings
	issuers  []*trusted
	rules    table
	list     *revocations // nil: nothing is revoked
}

// trusted is an issuer with its guard. Each has a guard of its own, rather than one that
// m2mauth.Join makes, so that a change of one issuer leaves the others' known tokens,
// queues and report-only latches alone.
type trusted struct {
	key    string // of the settings that made it
	name   string
	issuer string
	guard  *m2mauth.Guard
}

// examine reads a file and makes its guards and its table, without a network. The error has
// all mistakes. The generation knows which files were read, even beside an error.
func examine(file string, environ []string, before *generation, m *metrics) (*generation, error) {
	s, err := load(file, environ)
	if s.reader == nil {
		return &generation{settings: s}, err
	}
	g := newGeneration(s, before, m) // after a mistake too, to find all of them
	return g, s.reader.mistakes.sorted()
}

// newGeneration makes the guards and the table of a file. Guards whose settings are those
// of the generation before are taken over. It does no network I/O. What is wrong is added
// to the mistakes of the settings.
func newGeneration(s *settings, before *generation, m *metrics) *generation {
	g := &generation{settings: s}
	kept := make(map[string]*trusted)
	if before != nil {
		for _, t := range before.issuers {
			kept[t.key] = t
		}
	}
	seen := make(map[string]string)
	over := before.endedDryRun(s.ReportOnly)
	for n := range s.Issuers {
		i, path := &s.Issuers[n], fmt.Sprintf("issuers[%d]", n)
		config := i.config(s, path)
		if over {
			config.InsecureReportOnlyUntil = time.Time{}
		}
		t := &trusted{key: i.key(s), name: i.nameOf(config), issuer: config.Issuer}
		for _, name := range uniqueOf(t.name, t.issuer) {
			if other, twice := seen[name]; twice && name != "" {
				s.reader.add(path, "has the name or the issuer of %s", other)
			}
			seen[name] = path
		}
		if old := kept[t.key]; old != nil {
			t.guard = old.guard
		} else {
			t.guard = s.newGuard(config, path, m)
		}
		g.issuers = append(g.issuers, t)
	}
	g.rules = readRows(s.Rules, s.described, g.issuers, func(at *row, err error) { s.reader.addRow(at, "%v", err) })
	g.checkRules()
	return g
}

// endedDryRun reports whether a guard of the generation has ended the dry run until that
// time: then no new guard begins it again, whatever became of the clock.
func (g *generation) endedDryRun(until time.Time) bool {
	return g != nil && !until.IsZero() && until.Equal(g.settings.ReportOnly) &&
		slices.ContainsFunc(g.issuers, func(t *trusted) bool { return !t.guard.ReportOnly() })
}

func uniqueOf(a, b string) []string {
	if a == b {
		return []string{a}
	}
	return []string{a, b}
}

func (s *settings) newGuard(config m2mauth.Config, path string, m *metrics) *m2mauth.Guard {
	if config.Issuer == "" && s.reader.lines[path+".preset"] > 0 {
		return nil // the preset said what is wrong
	}
	guard, err := m2mauth.New(observed(config, m))
	if err != nil {
		known := maps.Clone(s.reader.wrong)
		for _, one := range errorsIn(err) {
			if place := s.placeOf(path, one); !known[place] { // else it follows from that
				s.reader.add(place, "%v", one)
			}
		}
		return nil
	}
	return guard
}

// observed returns the Config with functions that tell the call on whose behalf they run.
func observed(config m2mauth.Config, m *metrics) m2mauth.Config {
	config.Revoked = revoked
	config.OnDecision = func(ctx context.Context, d m2mauth.Decision) {
		if c, ok := ctx.Value(callKey{}).(*call); ok {
			c.decision = d
			m.decided(ctx, c.issuer.name, d)
		}
	}
	return config
}

// checkRules refuses rows that no issuer's token can open.
func (g *generation) checkRules() {
	for n := range g.rules {
		r := &g.rules[n]
		var last error
		for _, t := range g.issuers {
			if r.issuer != "" && r.issuer != t.issuer {
				continue
			}
			if r.public || t.guard == nil {
				last = nil
				break
			}
			if last = t.guard.ValidateRule(r.rule); last == nil {
				break
			}
		}
		if last != nil {
			g.settings.reader.addRow(r, "%s: %v", r, last)
		}
	}
}

// addRow notes a mistake in a row.
func (r *reader) addRow(at *row, format string, args ...any) {
	r.addIn(cmp.Or(at.file, r.file), at.order, at.line, format, args...)
}

// call is one request on its way through the guard.
type call struct {
	generation *generation
	issuer     *trusted // whose guard decides
	decision   m2mauth.Decision
}

type callKey struct{}

var errNoCall = errors.New("the gateway's guard was asked without the gateway")

// revoked asks the list of the request's generation.
func revoked(ctx context.Context, claims m2mauth.Claims) (bool, error) {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return false, errNoCall // fails closed
	}
	if c.generation.list == nil {
		return false, nil
	}
	return c.generation.list.Revoked(ctx, claims)
}

// issuerFor returns the issuer that a request's token names. The name is not trusted: the
// guard checks it, with everything else. The first one's refuses what names nobody.
func (g *generation) issuerFor(header http.Header) *trusted {
	if len(g.issuers) > 1 {
		name := issuerOf(header.Values("Authorization"), cmp.Or(g.settings.Limits.MaxTokenBytes, defaultTokenBytes))
		for _, t := range g.issuers {
			if t.issuer == name {
				return t
			}
		}
	}
	return g.issuers[0]
}

// defaultTokenBytes is the guard's, which refuses what is longer.
const defaultTokenBytes = 8 << 10

// issuerOf returns iss of a token, or "" where it is not to be found at a glance.
func issuerOf(fields []string, limit int) string {
	if len(fields) != 1 || len(fields[0]) > limit+len("Bearer ") {
		return ""
	}
	_, rest, _ := strings.Cut(fields[0], ".")
	payload, _, found := strings.Cut(rest, ".")
	if !found {
		return ""
	}
	text, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return ""
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	if json.Unmarshal(text, &claims) != nil {
		return ""
	}
	return claims.Issuer
}
