package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

type explainCommand struct {
	File   string `arg:"" help:"The configuration, in YAML."`
	Method string `arg:"" help:"The request's method, such as GET."`
	Path   string `arg:"" help:"The request's path, as the caller sends it, with its query if it has one."`
}

// Run explains.
func (c *explainCommand) Run(e *environment) error {
	g, err := examine(c.File, e.environ(), nil, nil)
	if _, wrong := errors.AsType[mistakes](err); wrong {
		fmt.Fprintln(e.stderr, err)
		return errFound
	}
	if err != nil {
		return err
	}
	if !g.explain(e.stdout, c.Method, c.Path) {
		return errFound
	}
	return nil
}

// explain says what the table says about a request, and reports whether a row decides.
func (g *generation) explain(w io.Writer, method, target string) bool {
	f, _, err := g.rules.search(method, target)
	say := func(format string, args ...any) { fmt.Fprintf(w, format+"\n", args...) }
	say("%s %s", method, target)
	switch {
	case err != nil:
		say("refused by the gateway, with 400, whatever the token: %v", err)
		return false
	case f.rival != nil:
		say("refused by the gateway, with 400, whatever the token: %v", errRival)
		say("the row that matches:      %s", g.describe(f.row))
		say("the row it may be taken for: %s", g.describe(f.rival))
		return false
	case f.row == nil:
		say("no row matches: 401 without a good token, 403 with one")
		g.sayReportOnly(w)
		for n := range g.rules {
			if r := &g.rules[n]; r.method != method && matches(r.pattern, pathOf(target)) {
				say("has another method: %s", g.describe(r))
			}
		}
		return false
	}
	say("decided by: %s", g.describe(f.row))
	switch {
	case f.row.public:
		say("needs: nothing; a token is not looked at")
	case f.row.rule.IsOptional():
		say("needs: nothing; but a token must be a valid one of %s that meets %s", g.issuersFor(f.row), f.row.rule)
	default:
		say("needs: a valid token of %s that meets %s%s", g.issuersFor(f.row), f.row.rule, f.row.narrowedText())
	}
	for _, r := range f.matched {
		if r != f.row {
			say("also matches, and is less literal: %s", g.describe(r))
		}
	}
	if !f.row.public {
		g.sayReportOnly(w)
	}
	return true
}

func (g *generation) sayReportOnly(w io.Writer) {
	if until := g.settings.ReportOnly; time.Now().Before(until) {
		fmt.Fprintf(w, "report-only until %s: what the guard would refuse passes until then\n", until.Format(time.RFC3339))
	}
}

func pathOf(target string) []string {
	path, _ := parseTarget(target) // was parsed before
	return path
}

func (r *row) narrowedText() string {
	if r.narrowed == "" {
		return ""
	}
	return ", where the row says" + r.narrowed
}

// describe returns a row with its place.
func (g *generation) describe(r *row) string {
	return fmt.Sprintf("%s %s (%s:%d)", r, r.demand, cmp.Or(r.file, g.settings.reader.file), r.line)
}

// issuersFor names the issuers whose tokens a row can take.
func (g *generation) issuersFor(r *row) string {
	var names []string
	for _, t := range g.issuers {
		if r.issuer == "" || r.issuer == t.issuer {
			names = append(names, t.name)
		}
	}
	return strings.Join(names, ", or ")
}
