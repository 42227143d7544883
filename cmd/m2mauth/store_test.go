package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth"
	"github.com/m2mauth/m2mauth/internal/test/redisserver"
	"github.com/m2mauth/m2mauth/m2mauthtest"
	"github.com/m2mauth/m2mauth/revocation"
	"github.com/m2mauth/m2mauth/revocation/redisstore"
)

const redisPassword = "hunter2-hunter2-hunter2"

// startRedis starts a server with the users of docs/revocation.md.
func startRedis(t *testing.T, settings ...string) *redisserver.Server {
	t.Helper()
	page, err := os.ReadFile("../../docs/revocation.md")
	require.NoError(t, err)
	var users []string
	for line := range strings.Lines(string(page)) {
		if user, ok := strings.CutPrefix(strings.TrimSpace(line), "user "); ok {
			users = append(users, "--user")
			users = append(users, strings.Fields(strings.ReplaceAll(user, "PASSWORD", redisPassword))...)
		}
	}
	require.NotEmpty(t, users)
	users = append(users, "--user", "admin", "on", "nopass", "~*", "+@all")
	return redisserver.Start(t, append(users, settings...)...)
}

// callStore runs a command as a user of the store. The password is in nothing that it says.
func callStore(t *testing.T, server *redisserver.Server, user string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	args = append(args, "--redis-address", server.Addr)
	variables := map[string]string{"M2MAUTH_ISSUER": "https://login.shop.example/oidc"}
	if user != "" {
		args = append(args, "--redis-username", user)
		variables[redisPasswordVariable] = redisPassword
	}
	status, stdout, stderr = call(t, "", variables, args...)
	assert.NotContains(t, stdout+stderr, redisPassword)
	return status, stdout, stderr
}

// entries are what list --json shows.
func entries(t *testing.T, server *redisserver.Server) []revocation.Entry {
	t.Helper()
	status, stdout, stderr := callStore(t, server, "m2mauth-replica", "list", "--json")
	require.Zero(t, status, stderr)
	var list struct{ Entries []revocation.Entry }
	require.NoError(t, json.Unmarshal([]byte(stdout), &list))
	return list.Entries
}

// replica follows the store like an API's.
func replica(t *testing.T, server *redisserver.Server) *revocation.List {
	t.Helper()
	store, err := redisstore.New(redisstore.Config{Address: server.Addr, Username: "m2mauth-replica", Password: redisPassword})
	require.NoError(t, err)
	list, err := revocation.New(revocation.Options{MaxTokenLifetime: time.Hour, Store: store, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); list.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done; store.Close() })
	require.Eventually(t, func() bool { return list.Ready(ctx) == nil }, time.Minute, 5*time.Millisecond)
	return list
}

// An operator shuts a client out and lets it in again, and a replica of the API obeys.
func TestRevokeListAndUndo(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	status, stdout, stderr := callStore(t, server, "m2mauth-revoke", "init")
	require.Zero(t, status, stderr)
	assert.Contains(t, stdout, "set up")
	assert.Contains(t, stderr, "+config|get", "the user may not ask for settings")

	api := replica(t, server)
	issuer := m2mauthtest.NewIssuer()
	config := issuer.Config("https://api.example.com")
	config.Revoked = api.Revoked
	guard, err := m2mauth.New(config)
	require.NoError(t, err)
	token := issuer.Sign(m2mauthtest.Token{AppID: "billing", Audience: "https://api.example.com"})
	_, err = guard.Verify(t.Context(), token)
	require.NoError(t, err)
	refused := func() bool { _, err := guard.Verify(t.Context(), token); return err != nil }

	status, stdout, stderr = callStore(t, server, "m2mauth-revoke", "list")
	require.Zero(t, status, stderr)
	assert.Equal(t, "Nothing is revoked.\n", stdout)

	status, stdout, stderr = callStore(t, server, "m2mauth-revoke", "revoke", "--issuer", issuer.URL(), "--client", "billing", "--by", "ops", "--reason", "its secret has leaked")
	require.Zero(t, status, stderr)
	assert.Contains(t, stdout, "Revoked client billing of "+issuer.URL()+", until undone.")
	id := regexp.MustCompile(`undo ([0-9A-F]{32}) `).FindStringSubmatch(stdout)[1]
	got := entries(t, server)
	require.Len(t, got, 1, "the store has it when the command ends")
	assert.Equal(t, revocation.Entry{ID: id, Issuers: []string{issuer.URL()}, Client: "billing", By: "ops", Reason: "its secret has leaked", At: got[0].At}, got[0])
	require.Eventually(t, refused, time.Minute, 5*time.Millisecond)
	_, err = guard.Verify(t.Context(), token)
	assert.ErrorIs(t, err, m2mauth.ErrRevoked)

	status, stdout, _ = callStore(t, server, "m2mauth-replica", "list")
	assert.Zero(t, status, "a user who may only read")
	lines := strings.Split(stdout, "\n")
	assert.Regexp(t, `^ID +REVOKES +FOR +ISSUERS +BY +AT +REASON$`, lines[0])
	assert.Regexp(t, `^`+id+` +client billing +until undone +https://issuer.test/oidc +ops +20[0-9TZ:-]+ +its secret has leaked$`, lines[1])

	for range 2 { // again is no error
		status, stdout, stderr = callStore(t, server, "m2mauth-revoke", "undo", id, "--reason", "it has a new one")
		require.Zero(t, status, stderr)
		assert.Contains(t, stdout, "Undone: entry "+id)
	}
	require.Eventually(t, func() bool { return !refused() }, time.Minute, 5*time.Millisecond)
	assert.Empty(t, entries(t, server))
}

func TestRevokeTakesWhatAnEntryHas(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	status, _, stderr := callStore(t, server, "m2mauth-revoke", "init")
	require.Zero(t, status, stderr)
	before := time.Now().UTC().Truncate(time.Second)
	for name, test := range map[string]struct {
		args  []string
		want  revocation.Entry
		words string
	}{
		"a token":         {[]string{"--jti", "id-1"}, revocation.Entry{Token: "id-1"}, "token id-1"},
		"a user":          {[]string{"--subject", "u", "--until-undone"}, revocation.Entry{Subject: "u"}, "subject u of"},
		"an organization": {[]string{"--organization", "acme", "--before", before.Format(time.RFC3339)}, revocation.Entry{Organization: "acme", Before: before}, "organization acme of https://login.shop.example/oidc, issued before " + before.Format(time.RFC3339)},
		"a member":        {[]string{"--organization", "acme", "--subject", "u"}, revocation.Entry{Organization: "acme", Subject: "u"}, "subject u in organization acme"},
		"an app in an organization, of two issuers": {[]string{"--organization", "acme", "--client", "c", "--issuer", "https://a.example/x,y", "--issuer", "https://b.example"},
			revocation.Entry{Organization: "acme", Client: "c", Issuers: []string{"https://a.example/x,y", "https://b.example"}}, "https://a.example/x,y and https://b.example"},
		"all": {[]string{"--all", "--before", before.Format(time.RFC3339)}, revocation.Entry{All: true, Before: before}, "all tokens of"},
	} {
		args := append([]string{"revoke", "--by", "ops", "--reason", name}, test.args...)
		status, stdout, stderr := callStore(t, server, "m2mauth-revoke", append(args, "--json")...)
		require.Zero(t, status, "%s: %s", name, stderr)
		var got revocation.Entry
		require.NoError(t, json.Unmarshal([]byte(stdout), &got), name)
		want := test.want
		want.ID, want.At, want.By, want.Reason = got.ID, got.At, "ops", name
		if want.Issuers == nil {
			want.Issuers = []string{"https://login.shop.example/oidc"}
		}
		assert.Equal(t, want, got, name)
		assert.Contains(t, entries(t, server), got, name)
		status, stdout, stderr = callStore(t, server, "m2mauth-revoke", args...)
		require.Zero(t, status, "%s: %s", name, stderr)
		assert.Contains(t, stdout, test.words, name)
	}

	status, stdout, stderr := callStore(t, server, "m2mauth-revoke", "revoke", "--client", "c", "--before", "now", "--reason", "r", "--json")
	require.Zero(t, status, stderr)
	var got revocation.Entry
	require.NoError(t, json.Unmarshal([]byte(stdout), &got))
	assert.WithinRange(t, got.Before, before, time.Now())
	assert.NotEmpty(t, got.By, "the login name")
}

func TestWhatRevokeRefusesIsAWrongCall(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	status, _, stderr := callStore(t, server, "m2mauth-revoke", "init")
	require.Zero(t, status, stderr)
	token := m2mauthtest.NewIssuer().Sign(m2mauthtest.Token{Audience: "a"})
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"nobody":                  {[]string{"--reason", "r"}, "selects no tokens"},
		"no reason":               {[]string{"--client", "c"}, "--reason"},
		"two at once":             {[]string{"--client", "c", "--subject", "s", "--reason", "r"}, "Client, Subject together"},
		"everybody, without end":  {[]string{"--all", "--reason", "r"}, "--before now, or --until-undone"},
		"both ends":               {[]string{"--client", "c", "--before", "now", "--until-undone", "--reason", "r"}, "--until-undone"},
		"no time":                 {[]string{"--client", "c", "--before", "yesterday", "--reason", "r"}, "--before is neither"},
		"too far ahead":           {[]string{"--client", "c", "--before", "2199-01-01T00:00:00Z", "--reason", "r"}, "ahead"},
		"too long ago":            {[]string{"--client", "c", "--before", "2001-01-01T00:00:00Z", "--reason", "r"}, "no token that was issued before it can be alive"},
		"a control character":     {[]string{"--client", "a\x1b[2Jb", "--reason", "r"}, "control characters"},
		"the token itself":        {[]string{"--jti", token, "--reason", "r"}, "a whole token"},
		"an Authorization field":  {[]string{"--jti", "Bearer " + token, "--reason", "r"}, "a whole token"},
		"a token as the issuer":   {[]string{"--issuer", token, "--jti", "j", "--reason", "r"}, "a whole token"},
		"a token as who does it":  {[]string{"--jti", "j", "--reason", "r", "--by", token}, "a whole token"},
		"the token in the reason": {[]string{"--client", "c", "--reason", token}, "a whole token"},
		"an odd lifetime":         {[]string{"--client", "c", "--reason", "r", "--max-token-lifetime", "1ms"}, "MaxTokenLifetime"},
		"no timeout":              {[]string{"--client", "c", "--reason", "r", "--timeout", "0s"}, "--timeout must be above 0"},
	} {
		status, stdout, stderr := callStore(t, server, "m2mauth-revoke", append([]string{"revoke"}, test.args...)...)
		assert.Equal(t, 2, status, "%s: %s", name, stderr)
		assert.Empty(t, stdout, name)
		assert.Contains(t, stderr, test.want, name)
		assert.NotContains(t, stderr, token[:40], name)
		assert.NotContains(t, stderr, "\x1b", name)
	}
	status, _, stderr = call(t, "", nil, "revoke", "--redis-address", server.Addr, "--client", "c", "--reason", "r")
	assert.Equal(t, 2, status)
	assert.Contains(t, stderr, "M2MAUTH_ISSUER", "whose tokens?")
	assert.Empty(t, entries(t, server), "nothing of that is in the store")

	status, _, stderr = callStore(t, server, "m2mauth-revoke", "undo", "NOSUCH", "--reason", "r")
	assert.Equal(t, 1, status)
	assert.Contains(t, stderr, "m2mauth list")
	status, _, stderr = callStore(t, server, "m2mauth-revoke", "undo", "NOSUCH", "--reason", "r\x07")
	assert.Equal(t, 2, status, stderr)
}

func TestInitIsForANewStoreOnAServerThatLosesNothing(t *testing.T) {
	t.Parallel()
	server := startRedis(t, "--appendfsync", "everysec")
	size := func() string { return server.Do("admin", "any", "XLEN", "{m2mauth}:revocations") }
	// Who may ask for settings learns that they are wrong.
	status, stdout, stderr := callStore(t, server, "admin", "init")
	assert.Equal(t, 1, status)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, "appendfsync is everysec")
	assert.Contains(t, stderr, "--accept-loss")
	assert.Equal(t, ":0", size())

	status, _, stderr = callStore(t, server, "m2mauth-replica", "init")
	assert.Equal(t, 1, status)
	assert.Contains(t, stderr, "lacks a right")
	assert.Equal(t, ":0", size())

	for _, args := range [][]string{{"list"}, {"undo", "X", "--reason", "r"}, {"revoke", "--client", "c", "--reason", "r"}} {
		status, stdout, stderr = callStore(t, server, "m2mauth-revoke", args...)
		assert.Equal(t, 1, status, "an empty list would say that nothing is revoked")
		assert.Empty(t, stdout)
		assert.Contains(t, stderr, "m2mauth init")
	}
	assert.Equal(t, ":0", size())

	status, _, stderr = callStore(t, server, "admin", "init", "--accept-loss")
	assert.Zero(t, status)
	assert.Contains(t, stderr, "warning: redisstore: appendfsync is everysec")
	assert.Equal(t, ":1", size())

	status, stdout, stderr = callStore(t, server, "m2mauth-revoke", "init")
	assert.Equal(t, 1, status, "again")
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, "has a list already")
	assert.Equal(t, ":1", size())
}

// What goes wrong between this command and the server is named with its remedy.
func TestTheStoresErrorsSayWhatToDo(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	status, _, stderr := callStore(t, server, "m2mauth-revoke", "init")
	require.Zero(t, status, stderr)
	dir := t.TempDir()
	file := func(name, content string) string {
		name = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
		return name
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	const closed = "127.0.0.1:1"
	revoke := []string{"revoke", "--issuer", "i", "--client", "c", "--by", "ops", "--reason", "r"}
	with := func(args []string, more ...string) []string { return append(args[:len(args):len(args)], more...) }
	password := map[string]string{redisPasswordVariable: redisPassword}
	for name, test := range map[string]struct {
		args      []string
		variables map[string]string
		status    int
		want      []string
	}{
		"a user who may only read": {with(revoke, "--redis-address", server.Addr, "--redis-username", "m2mauth-replica"), password, 1, []string{"NOPERM", "m2mauth-revoke", "the entry was not taken"}},
		"another list's key":       {[]string{"list", "--redis-address", server.Addr, "--redis-username", "m2mauth-replica", "--redis-key", "other"}, password, 1, []string{"NOPERM", "lacks a right"}},
		"a wrong password":         {[]string{"list", "--redis-address", server.Addr, "--redis-username", "m2mauth-replica"}, map[string]string{redisPasswordVariable: redisPassword + "?"}, 1, []string{"WRONGPASS", "check --redis-username and the password in M2MAUTH_REDIS_PASSWORD"}},
		"no user":                  {[]string{"list", "--redis-address", server.Addr}, nil, 1, []string{"NOAUTH", "--redis-username"}},
		"nobody listens":           {[]string{"list", "--redis-address", closed}, nil, 1, []string{"refused", "is the server up", closed}},
		"nobody answers":           {[]string{"list", "--redis-address", silent.Addr().String(), "--timeout", "100ms"}, nil, 1, []string{"is the server up"}},
		"no TLS there":             {[]string{"list", "--redis-address", server.Addr, "--redis-tls", "--redis-username", "m2mauth-replica", "--timeout", "300ms"}, password, 1, []string{"Does it speak TLS on this port?"}},
		"not on loopback":          {[]string{"list", "--redis-address", "redis.example:6379"}, nil, 2, []string{"TLS is required", "Password is required", "--redis-tls", redisPasswordVariable}},
		"two passwords":            {[]string{"list", "--redis-address", server.Addr, "--redis-password-file", file("p", redisPassword)}, password, 2, []string{"leave one out"}},
		"an empty password file":   {[]string{"list", "--redis-address", server.Addr, "--redis-password-file", file("empty", "\n")}, nil, 2, []string{"is empty"}},
		"no password file":         {[]string{"list", "--redis-address", server.Addr, "--redis-password-file", filepath.Join(dir, "none")}, nil, 2, []string{"--redis-password-file takes the name of a file"}},
		"a token to undo":          {[]string{"undo", "--redis-address", server.Addr, "--reason", "of eyJhbGciOiJFUzM4NCJ9.eyJ9.c2ln", "id"}, password, 2, []string{"a whole token"}},
		"an endless file":          {[]string{"list", "--redis-address", server.Addr, "--redis-tls-ca", file("big", strings.Repeat("x", 1<<20+1))}, nil, 2, []string{"more than"}},
		"no authority":             {[]string{"list", "--redis-address", server.Addr, "--redis-tls-ca", file("ca", redisPassword)}, nil, 2, []string{"no certificate in PEM"}},
		"a certificate alone":      {[]string{"list", "--redis-address", server.Addr, "--redis-tls-cert", file("cert", redisPassword)}, nil, 2, []string{"--redis-tls-key"}},
		"no address":               {[]string{"list"}, nil, 2, []string{"--redis-address"}},
		"a URL as the address":     {[]string{"list", "--redis-address", "redis://u:" + redisPassword + "@127.0.0.1"}, nil, 2, []string{"Address must be host:port"}},
	} {
		status, stdout, stderr := call(t, "", test.variables, test.args...)
		assert.Equal(t, test.status, status, "%s: %s", name, stderr)
		assert.Empty(t, stdout, name)
		for _, words := range test.want {
			assert.Contains(t, stderr, words, name)
		}
		assert.NotContains(t, stderr, redisPassword, name)
	}
	status, stdout, stderr := call(t, "", nil, "list", "--redis-address", server.Addr, "--redis-username", "m2mauth-replica", "--redis-password-file", file("good", redisPassword+"\r\n"))
	assert.Zero(t, status, stderr)
	assert.Equal(t, "Nothing is revoked.\n", stdout)

	server.Kill()
	status, stdout, stderr = callStore(t, server, "m2mauth-revoke", revoke...)
	assert.Equal(t, 1, status)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, "is the server up")
}

// The commands of docs/revocation.md, one after another, leave what the page says. Only the
// address is another, and TLS is tested below.
func TestTheCommandsOfThePage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/revocation.md")
	require.NoError(t, err)
	_, commands, found := strings.Cut(string(page), "as TestTheCommandsOfThePage of cmd/m2mauth has -->\n```sh\n")
	require.True(t, found)
	commands, _, _ = strings.Cut(commands, "```")
	server := startRedis(t)
	expand := strings.NewReplacer("$STORE", "--redis-address "+server.Addr+" --redis-username m2mauth-revoke", `"$CLIENT"`, "leaked")
	variables, store := map[string]string{redisPasswordVariable: redisPassword}, ""
	var outputs []string
	id := ""
	for line := range strings.Lines(commands) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "  #")
		if name, value, found := strings.Cut(strings.TrimPrefix(line, "export "), "="); found && !strings.HasPrefix(line, "m2mauth ") {
			switch name {
			case redisPasswordVariable:
			case "STORE":
				store = value
			default:
				variables[name] = value
			}
			continue
		}
		var args []string
		for _, word := range regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(strings.ReplaceAll(expand.Replace(line), `"$ID"`, id), -1) {
			args = append(args, strings.Trim(word, `"`))
		}
		status, stdout, stderr := call(t, "", variables, args[1:]...)
		require.Zero(t, status, "%s: %s", line, stderr)
		outputs = append(outputs, stdout)
		if id == "" && len(outputs) == 3 { // list
			id = regexp.MustCompile(`(?m)^[0-9A-F]{32}`).FindString(stdout)
			assert.Contains(t, stdout, "client leaked  until undone  https://your.logto.endpoint/oidc")
		}
	}
	assert.Equal(t, `"--redis-address redis.internal:6379 --redis-username m2mauth-revoke --redis-tls"`, store)
	require.Len(t, outputs, 5)
	assert.Contains(t, outputs[4], "Undone: entry "+id)
	got := entries(t, server)
	require.Len(t, got, 1)
	assert.Equal(t, "leaked", got[0].Client)
	assert.False(t, got[0].Before.IsZero())
}

func TestAStoreOverTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certificate, key := certificate(t, dir)
	port := strconv.Itoa(redisserver.FreePort(t))
	startRedis(t, "--tls-port", port, "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate)
	init := []string{"init", "--redis-address", "127.0.0.1:" + port, "--redis-username", "m2mauth-revoke"}
	for _, test := range []struct {
		name   string
		args   []string
		status int
		want   string
	}{
		{"without TLS", nil, 1, "add --redis-tls"},
		{"with the system's authorities", []string{"--redis-tls"}, 1, "--redis-tls-ca"},
		{"another name", []string{"--redis-tls-ca", certificate, "--redis-tls-name", "redis.example"}, 1, "--redis-tls-name"},
		{"without this client's certificate", []string{"--redis-tls-ca", certificate}, 1, "certificate required"},
		{"with all", []string{"--redis-tls-ca", certificate, "--redis-tls-name", "redis.internal", "--redis-tls-cert", certificate, "--redis-tls-key", key}, 0, "+config|get"},
	} {
		status, _, stderr := call(t, "", map[string]string{redisPasswordVariable: redisPassword}, append(init[:len(init):len(init)], test.args...)...)
		assert.Equal(t, test.status, status, "%s: %s", test.name, stderr)
		assert.Contains(t, stderr, test.want, test.name)
		assert.NotContains(t, stderr, redisPassword, test.name)
	}
}

// certificate makes a certificate that is its own authority, and its key.
func certificate(t *testing.T, dir string) (certificateFile, keyFile string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"redis.internal"}, IsCA: true, BasicConstraintsValid: true,
	}
	signed, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	certificateFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(certificateFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}), 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), 0o600))
	return certificateFile, keyFile
}

// A record that cannot be read may be a revocation: no list is shown without it.
func TestADamagedLogIsNotListed(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	status, _, stderr := callStore(t, server, "m2mauth-revoke", "init")
	require.Zero(t, status, stderr)
	server.Do("admin", "any", "XADD", "{m2mauth}:revocations", "1-*", "mark", "m", "record", "{}")
	var calls sync.WaitGroup
	for _, args := range [][]string{{"list"}, {"revoke", "--client", "c", "--reason", "r"}} {
		calls.Go(func() {
			status, stdout, stderr := callStore(t, server, "m2mauth-revoke", append(args, "--timeout", "4s")...)
			assert.Equal(t, 1, status)
			assert.Empty(t, stdout)
			assert.Contains(t, stderr, "none of genesis, entry and undo")
			assert.Contains(t, stderr, "The log is damaged")
		})
	}
	calls.Wait()
	server.Do("admin", "any", "XDEL", "{m2mauth}:revocations", "1-1")
	status, stdout, stderr := callStore(t, server, "m2mauth-revoke", "list")
	assert.Equal(t, 1, status)
	assert.Empty(t, stdout)
	assert.Contains(t, stderr, "damaged")
}

// What is in the list may have been written by others: it commands no terminal.
func TestListEscapesWhatATerminalObeys(t *testing.T) {
	t.Parallel()
	server := startRedis(t)
	status, _, stderr := callStore(t, server, "m2mauth-revoke", "init")
	require.Zero(t, status, stderr)
	status, _, stderr = callStore(t, server, "m2mauth-revoke", "revoke", "--client", "a\u202eb", "--reason", "r\u2028s")
	require.Zero(t, status, stderr)
	_, stdout, _ := callStore(t, server, "m2mauth-revoke", "list")
	assert.Contains(t, stdout, `client a\u202eb`)
	assert.Contains(t, stdout, `r\u2028s`)
	assert.False(t, bytes.ContainsFunc([]byte(stdout), unprintable))
	assert.Equal(t, "a\u202eb", entries(t, server)[0].Client)
}
