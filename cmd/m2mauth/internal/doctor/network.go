package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/m2mauth/m2mauth/internal/setting"
)

// network says how far the guard's requests came: name, connection, TLS, response.
func (x *inspection) network() {
	fetch := x.discovery
	if len(fetch) == 0 {
		fetch = x.keys
	}
	if len(fetch) == 0 {
		for _, id := range []string{checkName, checkConnection, checkTLS, checkResponse} {
			x.Skip(id, "the guard sent no request")
		}
		return
	}
	e := fetch[len(fetch)-1]
	proxied := x.proxied(e)
	x.name(e, proxied)
	x.connection(e, proxied)
	x.handshake(e)
	x.answer(e)
}

// proxied says that a request goes through a proxy, whose name and port are then the ones
// that are looked up and connected to.
func (x *inspection) proxied(e exchange) string {
	t, ok := x.wire.base.(*http.Transport)
	if !ok || t.Proxy == nil {
		return ""
	}
	proxy, err := t.Proxy(&http.Request{URL: e.url})
	if err != nil || proxy == nil {
		return ""
	}
	return " through the proxy " + Shown(proxy.Host)
}

func (x *inspection) name(e exchange, proxied string) {
	host := e.lookedUp
	switch {
	case e.lookupErr != nil && len(e.addresses) == 0:
		x.stop(checkName, fmt.Sprintf("the name %s does not resolve: %s", Shown(host), plain(e.lookupErr)),
			"correct the host in Issuer; if the name is right, the API's resolver does not know it: in Compose and Kubernetes set JWKSURL to a name that works there")
	case host != "" && len(e.addresses) > 0:
		x.Pass(checkName, fmt.Sprintf("%s is %s", Shown(host), Shown(strings.Join(e.addresses, ", "))))
	case host != "":
		x.stop(checkName, fmt.Sprintf("the name %s does not resolve: no answer within %v", Shown(host), x.timeout),
			"check the resolver of the machine that the API runs on")
	case e.connecting && proxied == "":
		x.Pass(checkName, Shown(e.url.Hostname())+" needs no lookup")
	default:
		x.Skip(checkName, "the HTTP client does not show lookups")
	}
}

func (x *inspection) connection(e exchange, proxied string) {
	const remedy = "check the port in Issuer, and whether a firewall or a network policy lets this machine through; " +
		"if the API must use another address, set JWKSURL; a proxy is taken from HTTPS_PROXY"
	where := Shown(e.url.Host) + proxied
	switch {
	case x.skip(checkConnection):
	case e.connected != "" && e.err != nil && e.url.Scheme == "https" && !e.shaking:
		x.stop(checkConnection, fmt.Sprintf("no tunnel to %s: %s", where, plain(e.err)),
			"the proxy of HTTPS_PROXY refuses this host: allow it there, or name the host in NO_PROXY")
	case e.connected != "":
		x.Pass(checkConnection, fmt.Sprintf("connected to %s, at %s", where, Shown(e.connected)))
	case e.connecting && e.connectErr != nil && !isTimeout(e.connectErr):
		x.stop(checkConnection, fmt.Sprintf("no connection to %s: %s", where, plain(e.connectErr)), remedy)
	case e.connecting:
		x.stop(checkConnection, fmt.Sprintf("no connection to %s: no answer within %v", where, x.timeout), remedy)
	default:
		x.Skip(checkConnection, "the HTTP client does not show connections")
	}
}

// expiresSoon is when a certificate is worth a look. Let's Encrypt's live for 90 days and
// are renewed 30 days before.
const expiresSoon = 14 * 24 * time.Hour

func (x *inspection) handshake(e exchange) {
	if x.skip(checkTLS) {
		return
	}
	state := e.tls
	if state == nil && e.response != nil { // an open connection was used
		state = e.response.TLS
	}
	switch {
	case e.url.Scheme != "https" && setting.IsInsecureHost(e.url, nil):
		x.Skip(checkTLS, "http to a loopback host: there is no TLS")
	case e.url.Scheme != "https":
		x.Warn(checkTLS, "http to "+Shown(e.url.Host)+", which is among InsecureHTTPHosts: whoever can change its responses can forge tokens",
			"use https unless nobody else is on this network")
	case state != nil && len(state.PeerCertificates) > 0:
		leaf := state.PeerCertificates[0]
		left := time.Until(leaf.NotAfter)
		detail := fmt.Sprintf("%s, certificate until %s", tls.VersionName(state.Version), day(leaf.NotAfter))
		if left < expiresSoon {
			x.Warn(checkTLS, fmt.Sprintf("%s, in %d days", detail, int(left/(24*time.Hour))), "renew the issuer's certificate: without a valid one the API's keys cannot be refreshed")
			return
		}
		x.Pass(checkTLS, detail)
	case e.tlsErr != nil && !isTimeout(e.tlsErr):
		detail, remedy := whyNoTLS(e.tlsErr, e.url.Hostname())
		x.stop(checkTLS, detail, remedy)
	case e.shaking:
		x.stop(checkTLS, fmt.Sprintf("the TLS handshake did not end within %v", x.timeout),
			"something else than a TLS server listens on this port, or a firewall holds the connection up")
	default:
		x.Skip(checkTLS, "the HTTP client does not show TLS")
	}
}

// whyNoTLS says why a handshake failed: the chain's reason, or the protocol's.
func whyNoTLS(err error, host string) (detail, remedy string) {
	var leaf *x509.Certificate
	if failed, ok := errors.AsType[*tls.CertificateVerificationError](err); ok && len(failed.UnverifiedCertificates) > 0 {
		leaf = failed.UnverifiedCertificates[0]
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired && invalid.Cert != nil {
		c := invalid.Cert
		whose := "the certificate"
		if leaf != nil && !c.Equal(leaf) {
			whose = "the chain has a certificate, of " + Shown(c.Subject.CommonName) + ", that"
		}
		if time.Now().Before(c.NotBefore) {
			return fmt.Sprintf("%s is not valid before %s", whose, c.NotBefore.UTC().Format(time.RFC3339)),
				"check the clock of this machine; if it is right, install the certificate that is valid now"
		}
		return fmt.Sprintf("%s expired on %s", whose, day(c.NotAfter)),
			"renew the issuer's certificate and reload the server or proxy that presents it; check the clock of this machine"
	}
	if wrong, ok := errors.AsType[x509.HostnameError](err); ok {
		names := wrong.Certificate.DNSNames
		for _, ip := range wrong.Certificate.IPAddresses {
			names = append(names, ip.String())
		}
		return fmt.Sprintf("the certificate is for %s, not for %s", Shown(strings.Join(names, ", ")), Shown(host)),
			"use the name that the certificate is for, or have a certificate issued for this one"
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		issuer := ""
		if leaf != nil {
			issuer = ", " + Shown(leaf.Issuer.String())
		}
		return "the certificate is signed by an unknown authority" + issuer,
			"give the authority's certificate to Config.HTTPClient (here --ca-file), or install it on the system; if it is a public one, the server leaves out its intermediate certificate"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "the server does not speak TLS on this port", "correct the port; or the server speaks http: use it only with InsecureHTTPHosts"
	}
	return "the TLS handshake failed: " + plain(err), "check what the server demands: a client certificate, a protocol version, or the server's name (SNI)"
}

// answer says whether a response came, and in which time.
func (x *inspection) answer(e exchange) {
	switch {
	case x.skip(checkResponse):
	case e.err == nil && e.response != nil:
		x.Pass(checkResponse, fmt.Sprintf("status %d in %v", e.response.StatusCode, e.took().Round(time.Millisecond)))
	case e.err != nil && isTimeout(e.err), e.err == nil:
		x.stop(checkResponse, fmt.Sprintf("%s did not answer within %v", Shown(e.url.Host), x.timeout),
			"see why the server, or the proxy before it, is slow or hangs; if it is always so slow, raise FetchTimeout (here --timeout)")
	case e.response != nil:
		x.stop(checkResponse, fmt.Sprintf("the response of %s broke off: %s", Shown(e.url.Host), plain(e.err)),
			"a server, a proxy or a middlebox cuts responses off: look at its log")
	default:
		x.stop(checkResponse, fmt.Sprintf("no response from %s: %s", Shown(e.url.Host), plain(e.err)),
			"a server, a proxy or a middlebox closed the connection, or does not speak HTTP: look at its log")
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// plain is an error's text without the URL that net/http wraps it in, which may have a
// query.
func plain(err error) string {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	return Shown(err.Error())
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }
