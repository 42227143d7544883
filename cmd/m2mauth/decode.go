package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/m2mauth/m2mauth/internal/claim"
	"github.com/m2mauth/m2mauth/internal/jose"
	"github.com/m2mauth/m2mauth/internal/strictjson"
)

// decodeCommand shows what a token says. It verifies nothing and asks nobody.
type decodeCommand struct {
	JSON bool `name:"json" help:"Print one JSON object, for scripts."`
}

// Help is shown below the flags.
func (decodeCommand) Help() string {
	return `The token is read from standard input, so that no history of a shell keeps it: m2mauth decode <token.txt. Bearer in front and space around it do no harm.

Nothing is sent anywhere, nothing is verified, and the signature is not shown. What is odd about the token is listed, and makes the exit status 1.

--json has header, claims, times (each with claim, at and words), odd, and verified, which is always false.`
}

// maxTokenBytes is far more than any guard accepts.
const maxTokenBytes = 1 << 20

// Run prints the header and the claims.
func (c *decodeCommand) Run(e *environment) error {
	input, err := io.ReadAll(io.LimitReader(e.stdin, maxTokenBytes+1))
	if err != nil {
		return fmt.Errorf("standard input cannot be read: %w", err)
	}
	if len(input) > maxTokenBytes {
		return usageError{fmt.Errorf("standard input has more than %d bytes: it is no token", maxTokenBytes)}
	}
	d := decode(bare(string(input)), time.Now())
	write := d.writeText
	if c.JSON {
		write = d.writeJSON
	}
	var out bytes.Buffer
	if err := write(&out); err != nil {
		return err
	}
	if _, err := io.WriteString(e.stdout, printable(out.String())); err != nil {
		return err
	}
	if len(d.Odd) > 0 {
		return errFound
	}
	return nil
}

// bare returns the token of an Authorization field, or of what a person copied.
func bare(input string) string {
	token := strings.TrimSpace(input)
	if scheme, rest, found := strings.Cut(token, " "); found && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(rest)
	}
	return token
}

// decoded is what a token says, as far as it can be read.
type decoded struct {
	Header object   `json:"header,omitempty"`
	Claims object   `json:"claims,omitempty"`
	Times  []moment `json:"times,omitempty"`
	Odd    []string `json:"odd"`

	Verified bool `json:"verified"` // never
}

// moment is a claim that is a time.
type moment struct {
	Claim string    `json:"claim"`
	At    time.Time `json:"at"`
	Words string    `json:"words"`
}

// object is a JSON object in its order. Of doubled members it has the first.
type object []field

type field struct {
	name  string
	value jsontext.Value
}

func (o object) get(name string) claim.Value {
	for _, f := range o {
		if f.name == name {
			return claim.Value(f.value)
		}
	}
	return nil
}

// MarshalJSONTo implements [json.MarshalerTo].
func (o object) MarshalJSONTo(enc *jsontext.Encoder) error {
	if err := enc.WriteToken(jsontext.BeginObject); err != nil {
		return err
	}
	for _, f := range o {
		if err := enc.WriteToken(jsontext.String(f.name)); err != nil {
			return err
		}
		if err := enc.WriteValue(f.value); err != nil {
			return err
		}
	}
	return enc.WriteToken(jsontext.EndObject)
}

// verdict on a token that says nothing to anybody but its issuer.
const opaque = "the token is opaque: it holds no claims to read, and only its issuer knows what it means. To get a JWT, request the token with the resource parameter, which names the API as it is registered with the issuer"

// decode reads a token as a guard does, and where that fails, as far as it goes. Parts that
// may belong to a signature are never shown.
func decode(token string, now time.Time) *decoded {
	d := &decoded{Odd: []string{}}
	if strings.HasPrefix(token, "{") || strings.HasPrefix(token, `"`) {
		d.odd("this is JSON, such as the response of a token endpoint: give the value of access_token alone, without quotes")
		return d
	}
	if whole := strings.Join(strings.Fields(token), ""); whole != token {
		d.odd("white space is within the token, as if it had been wrapped when it was copied: it is left out here, and no guard accepts it")
		token = whole
	}
	signed, _, err := jose.Split(token)
	if err != nil {
		signed = token
		dots := strings.Count(token, ".")
		switch {
		case token == "":
			d.odd("the token is empty: standard input has nothing")
			return d
		case dots == 0 && !strings.HasPrefix(token, "eyJ"):
			d.odd(opaque)
			return d
		case dots == 4: // all but the header is encrypted
			signed, _, _ = strings.Cut(token, ".")
		}
		d.odd(err.Error())
	}
	if len(token) > 8<<10 {
		d.odd(fmt.Sprintf("the token has %d bytes: a guard accepts 8 KiB unless Config.MaxTokenBytes says more", len(token)))
	}
	header, rest, hasClaims := strings.Cut(signed, ".")
	d.Header = d.read("header", header)
	if h, err := jose.ReadHeader(signed); err != nil {
		d.odd(err.Error())
	} else if _, known := jose.Algorithm(h.Algorithm); !known {
		d.odd("the token's alg is none that m2mauth verifies: such a token is never accepted")
	}
	if !hasClaims {
		return d
	}
	payload, _, _ := strings.Cut(rest, ".")
	d.Claims = d.read("payload", payload)
	if d.Claims != nil {
		d.judge(now)
	}
	return d
}

// odd notes something once.
func (d *decoded) odd(what string) {
	if !slices.Contains(d.Odd, what) {
		d.Odd = append(d.Odd, what)
	}
}

// read reads a part of the token that should be a JSON object.
func (d *decoded) read(part, encoded string) object {
	data, err := jose.DecodeBase64URL(encoded)
	if err != nil {
		d.odd("the token's " + part + " is not strict base64url")
		if data = laxBase64(encoded); data == nil {
			return nil
		}
	}
	o := make(object, 0, 8)
	take := func(name []byte, value jsontext.Value) error {
		if o.get(string(name)) != nil {
			d.odd(fmt.Sprintf("the token's %s has the member %q twice, of which the first is shown", part, name))
			return nil
		}
		value = slices.Clone(value)
		if err := value.Compact(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
			return err
		}
		o = append(o, field{strings.ToValidUTF8(string(name), "\uFFFD"), value})
		return nil
	}
	if strictjson.Object(data, take) == nil {
		return o
	}
	o = o[:0]
	if strictjson.Object(data, take, strictjson.Lenient...) != nil && len(o) == 0 {
		d.odd("the token's " + part + " is not a JSON object")
		return nil
	}
	d.odd("the token's " + part + " is not one strict JSON object")
	return o
}

// laxBase64 decodes what other readers may accept: padding, and the other alphabet.
func laxBase64(s string) []byte {
	s = strings.NewReplacer("+", "-", "/", "_", "\r", "", "\n", "").Replace(s)
	s = strings.TrimRight(s, "=")
	if len(s)%4 == 1 { // cut off
		s = s[:len(s)-1]
	}
	data, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil
	}
	return data
}

// judge puts times into words, and notes what no guard accepts.
func (d *decoded) judge(now time.Time) {
	for _, name := range []string{"iat", "nbf", "exp", "auth_time"} {
		value := d.Claims.get(name)
		if value == nil {
			if name == "exp" {
				d.odd(claim.Missing(name).Error())
			}
			continue
		}
		at, err := value.Time(name)
		if err != nil {
			d.odd(err.Error())
			continue
		}
		d.Times = append(d.Times, moment{name, at.UTC(), words(name, at, now)})
		switch {
		case name == "iat" && at.After(now.Add(clockDifference)):
			d.odd("the token was issued in the future: the clocks of this machine and of the issuer differ")
		case name == "nbf" && at.After(now.Add(clockDifference)):
			d.odd("the token is not valid yet")
		}
	}
	if _, err := d.Claims.get("iss").Text("iss"); err != nil {
		d.odd(err.Error())
	}
	if aud := d.Claims.get("aud"); aud == nil {
		d.odd(claim.Missing("aud").Error())
	} else if _, err := aud.Texts("aud"); err != nil {
		d.odd(err.Error())
	}
}

// clockDifference is a guard's default Leeway.
const clockDifference = 30 * time.Second

// words says when something was or will be.
func words(name string, at, now time.Time) string {
	past := !at.After(now)
	seconds := now.Unix() - at.Unix() // a Duration ends at 292 years
	when := "in " + about(-seconds)
	switch {
	case seconds == 0:
		when = "just now"
	case past:
		when = about(seconds) + " ago"
	}
	switch {
	case name == "exp" && past:
		return "expired " + when
	case name == "exp":
		return "expires " + when
	case name == "nbf" && past:
		return "valid since " + when
	case name == "nbf":
		return "valid " + when
	}
	return when
}

// about rounds seconds to what a person would say.
func about(seconds int64) string {
	const minute, hour, day, year = 60, 60 * 60, 24 * 60 * 60, 365 * 24 * 60 * 60
	n, unit := seconds/year, "year"
	switch {
	case seconds < 2*minute:
		n, unit = seconds, "second"
	case seconds < 2*hour:
		n, unit = seconds/minute, "minute"
	case seconds < 2*day:
		n, unit = seconds/hour, "hour"
	case seconds < 2*year:
		n, unit = seconds/day, "day"
	}
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}

// notVerified is below every token that is shown.
const notVerified = "NOT VERIFIED: anybody can write a token that says this. m2mauth doctor --token - checks one as the API does."

func (d *decoded) writeText(w *bytes.Buffer) error {
	d.writeObject(w, "header", d.Header)
	d.writeObject(w, "claims", d.Claims)
	if len(d.Odd) > 0 {
		fmt.Fprintln(w, "odd")
		for _, what := range d.Odd {
			fmt.Fprintf(w, "  - %s\n", what)
		}
		fmt.Fprintln(w)
	}
	if d.Header != nil || d.Claims != nil {
		fmt.Fprintln(w, notVerified)
	}
	return nil
}

func (d *decoded) writeObject(w *bytes.Buffer, title string, o object) {
	if o == nil {
		return
	}
	fmt.Fprintln(w, title)
	for _, f := range o {
		name := f.name
		if strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || unprintable(r) }) { // it could look like another line
			name = strconv.Quote(name)
		}
		fmt.Fprintf(w, "  %-12s %s", name, f.value)
		if i := slices.IndexFunc(d.Times, func(m moment) bool { return title == "claims" && m.Claim == f.name }); i >= 0 {
			fmt.Fprintf(w, "  %s, %s", d.Times[i].At.Format("2006-01-02 15:04:05 UTC"), d.Times[i].Words)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
}

func (d *decoded) writeJSON(w *bytes.Buffer) error {
	return writeJSON(w, d)
}

// writeJSON writes a value for scripts, in lines that people can read too.
func writeJSON(w io.Writer, v any) error {
	data, err := json.Marshal(v, jsontext.WithIndent("  "), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, printable(string(data)))
	return err
}
