//go:build unix

package gateway

import (
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
)

// What stands in for Traefik and Envoy does to a request what their sources say that they do
// to it between the caller, the gateway and the API, as the files beside the gateway configure
// them. It shows that the gateway's answers are the ones that such a proxy needs; what else
// those programs do, it cannot show.

// standIn starts a proxy and returns its address. It speaks HTTP/1.1, and HTTP/2 without TLS.
func (s *stack) standIn(t testing.TB, handler http.Handler) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: handler, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	s.addr = listener.Addr().String()
	s.h2 = s.addr
}

// settings reads a file beside the gateway.
func settings(t testing.TB, name string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(program, name))
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, into))
}

// handOn sends a request to the API with just this target and these fields.
func handOn(w http.ResponseWriter, r *http.Request, api, target string, keepTrailers bool) {
	u, err := url.ParseRequestURI(target)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		u.Scheme, u.Host = "http", api
		p.Out.URL = u
		p.Out.Host = p.In.Host
		if !keepTrailers {
			p.Out.Trailer = nil
		}
		for name := range p.Out.Trailer { // the names go on, and no value
			p.Out.Trailer[name] = nil
		}
	}}).ServeHTTP(w, r)
}

// hopByHop takes away what a Connection field names, and that field. An upgrade is left if
// it is one that is kept.
func hopByHop(h http.Header, managed func(name string) bool, keepUpgrade bool) {
	upgrade := h.Get("Upgrade")
	asked := false
	for _, value := range h.Values("Connection") {
		for name := range strings.SplitSeq(value, ",") {
			name = textproto.TrimString(name)
			asked = asked || strings.EqualFold(name, "Upgrade")
			if name != "" && !managed(http.CanonicalHeaderKey(name)) {
				h.Del(name)
			}
		}
	}
	for _, name := range []string{"Connection", "Keep-Alive", "Te", "Transfer-Encoding", "Upgrade"} {
		h.Del(name)
	}
	if asked && keepUpgrade {
		h.Set("Connection", "Upgrade")
		h.Set("Upgrade", upgrade)
	}
}

// traefikFields are those that Traefik takes from nobody but trusted addresses.
var traefikFields = []string{
	"X-Forwarded-Proto", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Server", "X-Forwarded-Uri",
	"X-Forwarded-Method", "X-Forwarded-Prefix", "X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info", "X-Real-Ip",
}

func isTraefiks(name string) bool {
	return slices.Contains(traefikFields, http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-")))
}

func deleteTraefiks(h http.Header) {
	for name := range h {
		if isTraefiks(name) {
			delete(h, name)
		}
	}
}

// behindTraefik starts what stands in for Traefik 3.7.13, and an API.
func (s *stack) behindTraefik(t *testing.T, gateway string) {
	t.Helper()
	var file struct {
		HTTP struct {
			Middlewares map[string]struct {
				ForwardAuth struct {
					Address             string
					TrustForwardHeader  *bool    `yaml:"trustForwardHeader"`
					AuthResponseHeaders []string `yaml:"authResponseHeaders"`
				} `yaml:"forwardAuth"`
			}
		}
	}
	settings(t, "traefik.yaml", &file)
	set := file.HTTP.Middlewares["gateway"].ForwardAuth
	require.NotNil(t, set.TrustForwardHeader)
	require.False(t, *set.TrustForwardHeader)
	address := strings.Replace(set.Address, "127.0.0.1:8080", gateway, 1)
	require.NotEqual(t, set.Address, address)
	client := &http.Client{Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

	var api string
	s.api, api = apiServer(t)
	s.standIn(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Opaque != "" || strings.Contains(r.URL.EscapedPath(), "#") || strings.Contains(r.URL.RawPath, "#") {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.URL.RawPath = withoutNeedlessEncoding(r.URL.RawPath)
		u := r.URL.JoinPath() // removes dot segments and doubled slashes
		u.RawQuery = strings.ReplaceAll(u.RawQuery, ";", "&")
		target := u.RequestURI()
		deleteTraefiks(r.Header)
		hopByHop(r.Header, isTraefiks, true)

		ask, err := http.NewRequestWithContext(r.Context(), http.MethodGet, address, nil)
		require.NoError(t, err)
		ask.Header = r.Header.Clone()
		hopByHop(ask.Header, func(string) bool { return false }, false)
		ask.Header.Del("Trailer")
		ask.Header.Set("X-Forwarded-For", "127.0.0.1")
		ask.Header.Set("X-Forwarded-Method", r.Method)
		ask.Header.Set("X-Forwarded-Proto", "http")
		ask.Header.Set("X-Forwarded-Port", "80")
		ask.Header.Set("X-Forwarded-Host", r.Host)
		ask.Header.Set("X-Forwarded-Uri", target)
		answer, err := client.Do(ask)
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		defer answer.Body.Close()
		if answer.StatusCode < 200 || answer.StatusCode > 299 {
			for name, values := range answer.Header {
				w.Header()[name] = values
			}
			w.WriteHeader(answer.StatusCode)
			_, _ = io.Copy(w, answer.Body)
			return
		}
		for _, name := range set.AuthResponseHeaders {
			name = http.CanonicalHeaderKey(name)
			r.Header.Del(name)
			if values := answer.Header[name]; len(values) > 0 {
				r.Header[name] = values
			}
		}
		if slices.Contains(strings.FieldsFunc(strings.ToLower(r.Header.Get("Upgrade")), func(r rune) bool { return r == ',' || r == ' ' }), "h2c") {
			r.Header.Del("Upgrade")
		}
		handOn(w, r, api, target, true)
	}))
}

// withoutNeedlessEncoding decodes what needs no encoding in a path that has a spelling of its
// own, and writes the rest in upper case.
func withoutNeedlessEncoding(path string) string {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] != '%' || i+2 >= len(path) {
			b.WriteByte(path[i])
			continue
		}
		n, _ := strconv.ParseUint(path[i+1:i+3], 16, 8)
		if c := byte(n); c < 0x80 && (c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte("-._~", c) >= 0) {
			b.WriteByte(c)
		} else {
			b.WriteString(strings.ToUpper(path[i : i+3]))
		}
		i += 2
	}
	return b.String()
}

// envoyFile is what of envoy.yaml the stand-in acts on.
type envoyFile struct {
	Upgrades []struct {
		Type string `yaml:"upgrade_type"`
	} `yaml:"upgrade_configs"`
	Filters []struct {
		Name   string
		Config struct {
			FailureModeAllow bool `yaml:"failure_mode_allow"`
			StatusOnError    struct {
				Code string
			} `yaml:"status_on_error"`
			EncodeRawHeaders bool `yaml:"encode_raw_headers"`
		} `yaml:"typed_config"`
	} `yaml:"http_filters"`
}

// behindEnvoy starts what stands in for Envoy and an API, for the gateway that answers gRPC at
// an address. Fields are told in one of the two forms that Envoy has, or as the file says.
func behindEnvoy(gateway string, raw func(file bool) bool) func(s *stack, t *testing.T, _ string) {
	return func(s *stack, t *testing.T, _ string) {
		t.Helper()
		var file envoyFile
		settings(t, "envoy.yaml", &file)
		require.Len(t, file.Filters, 2)
		set := file.Filters[0].Config
		require.False(t, set.FailureModeAllow)
		require.Equal(t, "ServiceUnavailable", set.StatusOnError.Code)
		var upgrades []string
		for _, u := range file.Upgrades {
			upgrades = append(upgrades, u.Type)
		}
		conn, err := grpc.NewClient(gateway, grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		t.Cleanup(func() { conn.Close() })
		client := authv3.NewAuthorizationClient(conn)

		var api string
		s.api, api = apiServer(t)
		s.standIn(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			target := r.RequestURI
			if r.URL.Scheme != "" {
				target = r.URL.RequestURI() // of the absolute form the path is left
			}
			protocol := strings.ToLower(strings.Join(r.Header.Values("Upgrade"), ",")) // one field, as every field that comes twice
			switch {
			case r.Method == http.MethodConnect: // no route takes it, unless it says so
				w.WriteHeader(http.StatusNotFound)
				return
			case strings.Contains(target, "#"):
				w.WriteHeader(http.StatusBadRequest)
				return
			case protocol != "" && protocol != "h2c" && !slices.Contains(upgrades, protocol):
				w.WriteHeader(http.StatusForbidden)
				return
			}
			hopByHop(r.Header, func(string) bool { return false }, slices.Contains(upgrades, protocol))
			ask := envoyAsks(r, target, raw(set.EncodeRawHeaders))
			answer, err := client.Check(r.Context(), ask)
			s.judged.add(decidedByEnvoy(ask, answer))
			if err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			if answer.GetStatus().GetCode() != int32(codes.OK) {
				no := answer.GetDeniedResponse()
				mutate(w.Header(), no.GetHeaders())
				w.WriteHeader(max(int(no.GetStatus().GetCode()), 400))
				_, _ = w.Write([]byte(no.GetBody()))
				return
			}
			mutate(r.Header, answer.GetOkResponse().GetHeaders())
			for _, name := range answer.GetOkResponse().GetHeadersToRemove() { // after what is set
				r.Header.Del(name)
			}
			handOn(w, r, api, target, false) // HTTP/1.1 without enable_trailers
		}))
	}
}

// envoyAsks makes the question about a request.
func envoyAsks(r *http.Request, target string, raw bool) *authv3.CheckRequest {
	host, port, _ := net.SplitHostPort(r.RemoteAddr)
	number, _ := strconv.ParseUint(port, 10, 32)
	q := &authv3.AttributeContext_HttpRequest{
		Id: "1", Method: r.Method, Path: target, Host: r.Host, Scheme: "http", Protocol: r.Proto, Size: r.ContentLength,
	}
	fields := map[string][]string{":authority": {r.Host}, ":method": {r.Method}, ":path": {target}, ":scheme": {"http"}, "x-forwarded-proto": {"http"}}
	for name, values := range r.Header {
		fields[strings.ToLower(name)] = values
	}
	if raw {
		q.HeaderMap = &corev3.HeaderMap{}
		for name, values := range fields {
			for _, value := range values {
				q.HeaderMap.Headers = append(q.HeaderMap.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
			}
		}
	} else {
		q.Headers = map[string]string{}
		for name, values := range fields {
			q.Headers[name] = strings.ToValidUTF8(strings.Join(values, ","), "!") // as Envoy writes what is no UTF-8
		}
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(number)}},
		}}},
		Request: &authv3.AttributeContext_Request{Http: q},
	}}
}

// mutate does to fields what an answer says.
func mutate(h http.Header, options []*corev3.HeaderValueOption) {
	for _, o := range options {
		name, value := o.GetHeader().GetKey(), o.GetHeader().GetValue()
		_, there := h[http.CanonicalHeaderKey(name)]
		switch o.GetAppendAction() {
		case corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
			h.Add(name, value)
		case corev3.HeaderValueOption_ADD_IF_ABSENT:
			if !there {
				h.Set(name, value)
			}
		case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
			if there {
				h.Set(name, value)
			}
		case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
			h.Set(name, value)
		}
	}
}
