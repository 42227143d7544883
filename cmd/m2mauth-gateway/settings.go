package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// settings is the file. Every field is optional but issuers, end, one of rules and
// openapi, and one of http and grpc.
type settings struct {
	HTTP       *listener           `yaml:"http"`
	GRPC       *grpcListener       `yaml:"grpc"`
	Metrics    *listener           `yaml:"metrics"`
	Issuers    []issuerSettings    `yaml:"issuers"`
	Rules      rowList             `yaml:"rules"`
	OpenAPI    []openAPISettings   `yaml:"openapi"`
	Realm      string              `yaml:"realm"`
	ReportOnly time.Time           `yaml:"insecure_report_only_until"`
	Limits     limits              `yaml:"limits"`
	Revocation *revocationSettings `yaml:"revocation"`
	End        bool                `yaml:"end"`

	inputs        map[string][sha256.Size]byte // every file that was read, by its name
	described     []row                        // of the documents
	redisPassword string
	reader        *reader // for mistakes that show later
}

// listener is where requests come in.
type listener struct {
	Address string       `yaml:"address"`
	TLS     *tlsSettings `yaml:"tls"`
}

// grpcListener is where Envoy asks.
type grpcListener struct {
	Address           string       `yaml:"address"`
	TLS               *tlsSettings `yaml:"tls"`
	KeepAuthorization bool         `yaml:"keep_authorization"`
}

func (l *grpcListener) listener() *listener {
	if l == nil {
		return nil
	}
	return &listener{l.Address, l.TLS}
}

// tlsSettings are files in PEM.
type tlsSettings struct {
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
	ClientCA    string `yaml:"client_ca"`
}

// limits bound what the gateway takes.
type limits struct {
	MaxTokenBytes   int           `yaml:"max_token_bytes"`
	CacheBytes      int64         `yaml:"cache_bytes"`
	MaxHeaderBytes  int           `yaml:"max_header_bytes"`
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout"`
}

// revocationSettings are those of the list of revoked tokens.
type revocationSettings struct {
	Redis            redisSettings `yaml:"redis"`
	MaxTokenLifetime time.Duration `yaml:"max_token_lifetime"`
	Leeway           time.Duration `yaml:"leeway"`
	MaxEntries       int           `yaml:"max_entries"`
	StaleFor         time.Duration `yaml:"stale_for"`
	InsecureFailOpen bool          `yaml:"insecure_fail_open"`
}

// redisSettings are those of the store that all gateways and APIs share.
type redisSettings struct {
	Address      string        `yaml:"address"`
	Cluster      bool          `yaml:"cluster"`
	Username     string        `yaml:"username"`
	PasswordFile string        `yaml:"password_file"`
	TLS          bool          `yaml:"tls"`
	CA           string        `yaml:"ca"`
	Database     int           `yaml:"database"`
	Key          string        `yaml:"key"`
	Timeout      time.Duration `yaml:"timeout"`
}

const (
	defaultShutdownTimeout = 10 * time.Second
	maxShutdownTimeout     = 10 * time.Minute

	// defaultHeaderBytes is more than nginx accepts of a caller (4 × 16 KiB in
	// nginx.conf): what the gateway cannot read would be answered with 500.
	defaultHeaderBytes = 128 << 10
	minHeaderBytes     = 16 << 10
	maxHeaderBytes     = 4 << 20
)

// rowList is the table's rows, as a list or as a block of text.
type rowList []rowSettings

// rowSettings is a row, and what may be added to one.
type rowSettings struct {
	line         int
	Row          string `yaml:"row"`
	Issuer       string `yaml:"issuer"`
	Client       words  `yaml:"client"`
	Organization string `yaml:"organization"`
}

func (l *rowList) read(r *reader, path string, n *yaml.Node) {
	switch n.Kind {
	case yaml.ScalarNode:
		l.block(r, path, n)
	case yaml.SequenceNode:
		for i, item := range n.Content {
			inner := fmt.Sprintf("%s[%d]", path, i)
			r.lines[inner] = item.Line
			row := rowSettings{line: item.Line}
			if item.Kind == yaml.ScalarNode {
				row.Row = item.Value
			} else {
				r.fields(inner, item, reflect.ValueOf(&row).Elem())
			}
			*l = append(*l, row)
		}
	default:
		r.add(path, "must be a list of rows, or a block of text with one row a line (rules: |)")
	}
}

// block reads a block of text. Only in a literal one a line of the text is one of the file.
func (l *rowList) block(r *reader, path string, n *yaml.Node) {
	if n.Style&yaml.LiteralStyle == 0 {
		r.add(path, "must be a list of rows, or a block of text with one row a line (rules: |)")
		return
	}
	line := n.Line
	for text := range strings.Lines(n.Value) {
		line++
		if fields := strings.Fields(text); len(fields) > 0 && !strings.HasPrefix(fields[0], "#") {
			*l = append(*l, rowSettings{line: line, Row: text})
		}
	}
}

// words is one word, or a list of them.
type words []string

func (w *words) read(r *reader, path string, n *yaml.Node) {
	var list []string
	if n.Kind == yaml.ScalarNode {
		var one string
		r.value(path, n, reflect.ValueOf(&one).Elem())
		list = []string{one}
	} else {
		r.value(path, n, reflect.ValueOf(&list).Elem())
	}
	*w = list
}

// load reads the file and the variables. The error has every mistake, with its line; the
// settings then say which files were read.
func load(file string, environ []string) (*settings, error) {
	text, err := readFile(file)
	if err != nil {
		return &settings{inputs: map[string][sha256.Size]byte{file: {}}}, err
	}
	return parse(file, text, environ)
}

// parse is load for a text that was read.
func parse(file string, text []byte, environ []string) (*settings, error) {
	r := newReader(filepath.Base(file))
	s := &settings{inputs: map[string][sha256.Size]byte{file: sha256.Sum256(text)}}
	r.document(text, s)
	if len(r.mistakes) > 0 && len(r.lines) == 0 {
		return s, r.mistakes.sorted() // it could not be read at all
	}
	s.fromEnviron(r, environ)
	s.checkEnd(r, text)
	s.check(r, filepath.Dir(file))
	s.reader = r
	if err := r.mistakes.sorted(); err != nil {
		return s, err
	}
	return s, nil
}

var endForm = regexp.MustCompile(`(?m)^end:[ \t]+true\s*\z`)

// checkEnd refuses a file that may be half written: one whose last line is not "end: true".
func (s *settings) checkEnd(r *reader, text []byte) {
	if !s.End || !endForm.Match(text) {
		r.addLine(1+strings.Count(strings.TrimRight(string(text), "\n"), "\n"), "the last line must be \"end: true\": without it, the file may be half written")
	}
}

// check finds the mistakes that need more than one field, and reads the files that are
// named. Relative names are seen from the folder of the configuration.
func (s *settings) check(r *reader, dir string) {
	if s.HTTP == nil && s.GRPC == nil {
		r.add("", "http and grpc are missing: set the address of at least one, or nobody can ask")
	}
	s.checkListener(r, dir, "http", s.HTTP)
	s.checkListener(r, dir, "grpc", s.GRPC.listener())
	s.checkListener(r, dir, "metrics", s.Metrics)
	if len(s.Issuers) == 0 && !r.wrong["issuers"] {
		r.add("issuers", "is missing: name at least one issuer")
	}
	s.checkOpenAPI(r, dir)
	if len(s.Rules) == 0 && len(s.OpenAPI) == 0 && !r.wrong["rules"] {
		r.add("rules", "the table has no row, and so would refuse everything")
	}
	if n := s.Limits.MaxHeaderBytes; n != 0 && (n < minHeaderBytes || n > maxHeaderBytes) {
		r.add("limits.max_header_bytes", "must be from %d to %d", minHeaderBytes, maxHeaderBytes)
	}
	if d := s.Limits.ShutdownTimeout; d < 0 || d > maxShutdownTimeout {
		r.add("limits.shutdown_timeout", "must be above 0, and at most %v", maxShutdownTimeout)
	}
	s.checkRevocation(r, dir)
}

func (s *settings) checkListener(r *reader, dir, path string, l *listener) {
	if l == nil {
		return
	}
	switch socket, isSocket := strings.CutPrefix(l.Address, unixPrefix); {
	case l.Address == "":
		if _, known := r.lines[path+".address"]; !known {
			r.add(path, "address is missing: host:port, or unix: and the path of a socket")
		}
	case isSocket && !filepath.IsAbs(socket):
		r.add(path+".address", "the path of a socket must be absolute, such as unix:/run/m2mauth/gateway.sock")
	case isSocket && l.TLS != nil:
		r.add(path+".tls", "is of no use on a Unix socket: leave it out")
	case !isSocket:
		if _, port, err := net.SplitHostPort(l.Address); err != nil || port == "" {
			r.add(path+".address", "must be host:port, or unix: and the path of a socket")
		}
	}
	if l.TLS == nil {
		return
	}
	l.TLS.Certificate = s.named(r, dir, path+".tls.certificate", l.TLS.Certificate, true)
	l.TLS.Key = s.named(r, dir, path+".tls.key", l.TLS.Key, true)
	l.TLS.ClientCA = s.named(r, dir, path+".tls.client_ca", l.TLS.ClientCA, false)
	if l.TLS.Certificate != "" && l.TLS.Key != "" {
		if _, err := l.TLS.config(); err != nil {
			r.add(path+".tls", "%v", err)
		}
	}
}

// named reads a file that a setting names, notes its content, and returns its full name.
func (s *settings) named(r *reader, dir, path, name string, required bool) string {
	switch {
	case name == "" && required:
		r.add(path, "is missing")
		return ""
	case name == "":
		return ""
	case !filepath.IsAbs(name):
		name = filepath.Join(dir, name)
	}
	content, err := readFile(name)
	if err != nil {
		s.inputs[name] = [sha256.Size]byte{}
		r.add(path, "%v", err)
		return ""
	}
	s.inputs[name] = sha256.Sum256(content)
	return name
}

// maxInputBytes bounds the files that the configuration names.
const maxInputBytes = 16 << 20

// readFile reads a file that has an end: not a device or a pipe.
func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, &os.PathError{Op: "open", Path: name, Err: errors.New("is no file")}
	case info.Size() > maxInputBytes:
		return nil, &os.PathError{Op: "open", Path: name, Err: fmt.Errorf("is larger than %d bytes", maxInputBytes)}
	}
	return os.ReadFile(name)
}

// changed reports whether a file that was read has another content now, or none.
func (s *settings) changed() bool {
	for name, sum := range s.inputs {
		var now [sha256.Size]byte // of none
		if content, err := readFile(name); err == nil {
			now = sha256.Sum256(content)
		}
		if now != sum {
			return true
		}
	}
	return false
}
