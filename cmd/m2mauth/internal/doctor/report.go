// Package doctor finds out what is wrong between an API, its issuer and a token. Each
// finding is a [Check] of a [Report].
package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Status says how a check ended.
type Status string

// The statuses of a check.
const (
	Pass Status = "pass"
	Warn Status = "warn" // works, but will not always, or is weaker than it seems
	Fail Status = "fail"
	Skip Status = "skip" // could not be checked, or does not apply
)

// Check is one thing that was checked. ID is stable, for scripts. Detail says what was
// found, and Remedy what to do about it. All three are one line and hold no secret.
type Check struct {
	ID     string `json:"check"`
	Status Status `json:"status"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// Report is what was checked, in order.
type Report struct {
	Checks []Check `json:"checks"`

	redact func(text string) string // removes what must not be shown, or nil
}

// Pass adds a check that passed.
func (r *Report) Pass(id, detail string) { r.add(id, Pass, detail, "") }

// Warn adds a check whose finding should be looked at.
func (r *Report) Warn(id, detail, remedy string) { r.add(id, Warn, detail, remedy) }

// Fail adds a check that failed.
func (r *Report) Fail(id, detail, remedy string) { r.add(id, Fail, detail, remedy) }

// Skip adds a check that was not made.
func (r *Report) Skip(id, why string) { r.add(id, Skip, why, "") }

// add is the only way into a report, so that no check forgets to escape.
func (r *Report) add(id string, s Status, detail, remedy string) {
	if r.redact != nil {
		detail, remedy = r.redact(detail), r.redact(remedy)
	}
	r.Checks = append(r.Checks, Check{id, s, printable(detail), printable(remedy)})
}

// Failed reports whether a check failed.
func (r *Report) Failed() bool {
	return slices.ContainsFunc(r.Checks, func(c Check) bool { return c.Status == Fail })
}

// WriteTable writes the report for people: a row for each check, with its remedy below.
func (r *Report) WriteTable(w io.Writer) error {
	var b strings.Builder
	width, counts := 0, make(map[Status]int)
	for _, c := range r.Checks {
		width = max(width, len(c.ID))
		counts[c.Status]++
	}
	for _, c := range r.Checks {
		fmt.Fprintf(&b, "%-4s  %-*s  %s\n", c.Status, width, c.ID, c.Detail)
		if c.Remedy != "" {
			fmt.Fprintf(&b, "      %-*s  > %s\n", width, "", c.Remedy)
		}
	}
	fmt.Fprintf(&b, "\n%d passed, %d failed, %d to look at, %d not checked\n", counts[Pass], counts[Fail], counts[Warn], counts[Skip])
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteJSON writes the report for scripts. The member ok is false if a check failed.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		OK     bool    `json:"ok"`
		Checks []Check `json:"checks"`
	}{!r.Failed(), append([]Check{}, r.Checks...)})
}

// maxShown limits what a stranger can put into one line, in bytes.
const maxShown = 200

// Shown makes a stranger's text fit to be part of a line: it is cut, and control
// characters, which could rewrite a terminal, are escaped.
func Shown(s string) string {
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + "…"
	}
	return printable(s)
}

// printable escapes what is not meant to be printed.
func printable(s string) string {
	var b strings.Builder
	for _, c := range s {
		if strconv.IsPrint(c) {
			b.WriteRune(c)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(c), "'"))
		}
	}
	return b.String()
}
