//go:build unix

package gateway

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/m2mauth/m2mauth/e2e/internal/process"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the matrix into docs/gateway-proxies.md")

const (
	matrixPage  = "../../docs/gateway-proxies.md"
	matrixBegin = "<!-- The table is written by: go test ./e2e/gateway -run TestProxies -update -->\n"
)

// column is a proxy of the matrix.
type column struct {
	name   string
	behind func(s *stack, t *testing.T, gateway string)
	// repairs says that the proxy makes a path of its own before it asks: dot segments, doubled
	// slashes and encodings that are not needed are gone.
	repairs bool
	// keepsToken says that Authorization goes on to the API.
	keepsToken bool
	// passesUpgrades says that the API is offered other protocols than WebSocket, but for HTTP/2.
	passesUpgrades bool
	// passesTrailers says that the API gets the caller's trailers, under whatever name.
	passesTrailers bool
	// dropsEmpty says that the API gets no field without a value.
	dropsEmpty bool
}

// TestProxies sends every request of the table through every proxy. The API must see what the
// gateway decided about, with the identity that it answered and nothing of the caller's in its
// place; and nothing that was refused.
func TestProxies(t *testing.T) {
	issuer := newIssuer(t)
	envoy := process.FreeAddresses(t, 1)[0]
	gateway := startGateway(t, issuer.URL(), "grpc:\n  address: "+envoy)

	token := "Bearer " + issuer.Sign(m2mauthtest.Token{AppID: app, Audience: audience, Scopes: []string{"read:products", "write:products", "read:files"}})
	table := rows()
	for i := range table {
		r := &table[i]
		if r.method == "" {
			r.method = "GET"
		}
		if r.version == "" {
			r.version = "1.1"
		}
	}

	fileSays := func(raw bool) bool { return raw }
	var names []string
	cells := make([][]string, len(table))
	for _, c := range []struct {
		name  string
		setup func(t *testing.T) column
	}{
		{"nginx", func(t *testing.T) column {
			return column{name: "nginx " + versionOf(t, exec.Command(nginxPath(t), "-v")), behind: (*stack).behind, dropsEmpty: true}
		}},
		{"Debian's Caddy", func(t *testing.T) column {
			path := caddies[0].path(t)
			return column{name: "Caddy " + caddies[0].version(t), behind: behindCaddy(path)}
		}},
		{"current Caddy", func(t *testing.T) column {
			path := caddies[1].path(t)
			return column{name: "Caddy " + caddies[1].version(t), behind: behindCaddy(path), passesTrailers: true}
		}},
		{"stand-in for Traefik", func(*testing.T) column {
			return column{name: "Traefik (stand-in)", behind: (*stack).behindTraefik, repairs: true, keepsToken: true, passesUpgrades: true}
		}},
		{"stand-in for Envoy", func(*testing.T) column {
			return column{name: "Envoy (stand-in)", behind: behindEnvoy(envoy, fileSays)}
		}},
		{"stand-in for Envoy, fields joined", func(*testing.T) column {
			return column{behind: behindEnvoy(envoy, func(file bool) bool { return !file })}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			column := c.setup(t)
			s := newStackAt(t, issuer, gateway, column.behind)
			var list []string
			for _, r := range table {
				r.fields = slices.Clone(r.fields)
				for i := range r.fields {
					r.fields[i] = strings.Replace(r.fields[i], "{reader}", token, 1)
				}
				list = append(list, s.through(t, column, r))
			}
			if column.name == "" { // decides as the one before
				for i := range list {
					assert.Equal(t, cells[i][len(cells[i])-1], list[i], table[i].heading())
				}
				return
			}
			names = append(names, column.name)
			for i := range list {
				cells[i] = append(cells[i], list[i])
			}
		})
	}
	if !t.Failed() {
		compare(t, names, table, cells)
	}
}

// A dry run leaves the token to an older check behind Envoy too.
func TestEnvoyReportsOnly(t *testing.T) {
	envoy := process.FreeAddresses(t, 1)[0]
	newStackOf(t, behindEnvoy(envoy, func(raw bool) bool { return raw }), "grpc:\n  address: "+envoy, reportOnly()).reportsOnly(t)
}

// through sends a request through a proxy, checks what became of it, and says it in a few words.
func (s *stack) through(t *testing.T, c column, r sent) string {
	t.Helper()
	name := r.name + " " + r.method + " " + strconv.Quote(r.target)
	status := r.send(t, s)
	asked, got := s.judged.take(), s.api.take()
	if !assert.LessOrEqual(t, len(asked), 1, name) || !assert.LessOrEqual(t, len(got), 1, name) {
		return "?"
	}
	if len(got) == 0 {
		assert.NotEqual(t, always, r.passes, "%s: %s, and the API has not seen it", name, status)
		code, _ := strconv.Atoi(status)
		if status == closed && r.passes == perhaps { // nginx, at trailers of HTTP/2: sometimes it has asked by then
			return status
		}
		if len(asked) == 0 { // Caddy answers 200 for a host that it does not know
			assert.True(t, status == closed || code >= 400 || r.passes == perhaps && code == 200, "%s: %s, and the API has not seen it", name, status)
			return status + ", not asked"
		}
		assert.False(t, asked[0].passes(), "%s: let through, and the API has not seen it", name)
		assert.Equal(t, fmt.Sprint(asked[0].status), status, name)
		return status
	}

	seen := got[0]
	if !assert.Len(t, asked, 1, "%s: the API has seen what the gateway was not asked about", name) {
		return "?"
	}
	d := asked[0]
	assert.True(t, d.passes(), "%s: the API has seen what the gateway refused with %d", name, d.status)
	assert.True(t, r.passes != never || c.repairs || encodes(r.target, d.target), "%s must not reach the API", name)
	assert.Equal(t, d.method, seen.method, name)
	assert.Equal(t, d.target, seen.target, "%s: not what was decided about", name)
	assert.Equal(t, sha256.Sum256([]byte(r.body)), sha256.Sum256([]byte(seen.body)), "%s: the body", name)
	switch upgrade := seen.header.Values("Upgrade"); {
	case len(upgrade) == 0:
		assert.Equal(t, "200", status, name)
	case c.passesUpgrades:
		assert.Equal(t, "101", status, name)
		assert.NotContains(t, strings.ToLower(strings.Join(upgrade, ",")), "h2c", name)
	default: // requests that nobody decides about cannot stand in the tunnel
		assert.Equal(t, "101", status, name)
		assert.Equal(t, "websocket", strings.ToLower(strings.Join(upgrade, ",")), name)
	}

	assert.Equal(t, d.identity, claimed(seen), "%s: the API and the gateway name different callers", name)
	switch {
	case d.target == "/healthz" || r.caller == "public":
		assert.Equal(t, nobody, claimed(seen), name)
	default:
		assert.Equal(t, s.reader(), claimed(seen), name)
	}
	for i, field := range identityFields {
		if n := len(seen.header.Values(field)); c.dropsEmpty && d.identity[i] == "" {
			assert.Zero(t, n, "%s: %s", name, field)
		} else {
			assert.Equal(t, 1, n, "%s: %s", name, field)
		}
	}
	for field, values := range seen.header {
		assert.NotContains(t, strings.Join(values, " "), "root", "%s: %s", name, field)
		assert.True(t, !isIdentity(field) || slices.Contains(identityFields, field), "%s: %s", name, field)
	}
	trailers := 0
	for field, values := range seen.trailer { // some proxies pass the names on, without values
		trailers += len(values)
		assert.True(t, !isIdentity(field) || len(values) == 0 || c.passesTrailers, "%s: the trailer %s", name, field)
	}
	if !c.keepsToken {
		assert.Empty(t, seen.header.Values("Authorization"), name)
	}

	cell := status + " " + d.identity[len(d.identity)-1]
	if seen.target != r.target {
		cell += " as " + code(seen.target)
	}
	if trailers > 0 {
		cell += ", with the trailers"
	}
	return cell
}

// encodes reports whether a target became another only in that characters that must be encoded
// are.
func encodes(sent, decided string) bool {
	return sent != decided && strings.NewReplacer("{", "%7B", "}", "%7D", `"`, "%22", "|", "%7C", "[", "%5B", "]", "%5D").Replace(sent) == decided
}

// reader returns what the API is told of the caller of the table.
func (s *stack) reader() []string {
	return []string{s.issuer.URL(), app, app, app, "", "read:products write:products read:files", "allowed"}
}

func code(text string) string {
	text = strconv.QuoteToASCII(text)
	text = strings.ReplaceAll(strings.ReplaceAll(text[1:len(text)-1], `\"`, `"`), `\\`, `\`)
	return "`" + strings.ReplaceAll(text, "|", `\|`) + "`"
}

// compare holds the page to what happened. A proxy of another version than the page's is not
// compared, since what it refuses on its own may differ.
func compare(t *testing.T, names []string, table []sent, cells [][]string) {
	t.Helper()
	render := func(columns []int) string {
		var b strings.Builder
		line := func(first string, cell func(i int) string) {
			b.WriteString("| " + first + " |")
			for _, i := range columns {
				b.WriteString(" " + cell(i) + " |")
			}
			b.WriteString("\n")
		}
		line("request", func(i int) string { return names[i] })
		line("---", func(int) string { return "---" })
		for i, r := range table {
			line(r.heading(), func(n int) string { return cells[i][n] })
		}
		return b.String()
	}
	var all []int
	for i := range names {
		all = append(all, i)
	}
	t.Logf("%d requests through %d proxies\n%s", len(table), len(names), render(all))

	file, err := os.ReadFile(matrixPage)
	require.NoError(t, err)
	before, on, found := strings.Cut(string(file), matrixBegin)
	require.True(t, found, "the page must say where the matrix begins")
	if *update {
		require.NoError(t, os.WriteFile(matrixPage, []byte(before+matrixBegin+"\n"+render(all)), 0o644))
		return
	}
	lines := strings.Split(strings.TrimSpace(on), "\n")
	split := func(line string) []string {
		parts := strings.Split(strings.Trim(line, "|"), " | ")
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
		}
		return parts
	}
	headings := split(lines[0])
	require.Len(t, lines, len(table)+2, "the page has another number of requests")
	for n, name := range names {
		at := slices.Index(headings, name)
		if at < 0 {
			t.Logf("%s is not on the page, so that it is not compared", name)
			continue
		}
		for i, r := range table {
			parts := split(lines[i+2])
			assert.Equal(t, r.heading(), parts[0])
			assert.Equal(t, cells[i][n], parts[at], "%s: %s", name, r.heading())
		}
	}
}

// heading is a request in the matrix.
func (r sent) heading() string {
	version := ""
	switch {
	case r.version == "1.0":
		version = " HTTP/1.0"
	}
	text := code(r.method + " " + r.target + version)
	for _, f := range r.fields {
		if f == bearer || f == strings.ToLower(bearer[:1])+bearer[1:] {
			continue
		}
		text += " " + code(f)
	}
	if r.name == "" || strings.HasPrefix(r.lastField(), r.name+":") {
		return text
	}
	return r.name + ": " + text
}

// lastField is the last field, which the name of some requests repeats.
func (r sent) lastField() string {
	if len(r.fields) == 0 {
		return ""
	}
	return r.fields[len(r.fields)-1]
}
