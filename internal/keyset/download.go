package keyset

import (
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/m2mauth/m2mauth/internal/ascii"
)

const (
	maxDocumentBytes = 1 << 20
	maxHeaderBytes   = 64 << 10
	maxRedirects     = 3
)

// NewClient returns a client that follows redirects only within an origin: another
// origin must not decide which keys sign the issuer's tokens. Otherwise the client is a
// copy of configured, or a new one if that is nil.
func NewClient(configured *http.Client, timeout time.Duration) *http.Client {
	client := http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: timeout}).DialContext, // connecting is not ended by the request's context
		TLSHandshakeTimeout:    timeout,
		DisableKeepAlives:      true, // fetches are minutes apart: keep no connection and no goroutine
		MaxResponseHeaderBytes: maxHeaderBytes,
	}}
	if configured != nil {
		client = *configured
	}
	client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if !SameOrigin(r.URL, via[0].URL) {
			return errors.New("redirected to another origin")
		}
		if len(via) > maxRedirects {
			return errors.New("redirected too often")
		}
		return nil
	}
	return &client
}

// Error is a failed fetch from one URL.
type Error struct {
	Found
	url        string
	err        error
	retryAfter string // the header of the response
}

func (e *Error) Error() string {
	return withoutQueries("GET " + e.url + ": " + e.err.Error())
}
func (e *Error) Unwrap() error { return e.err }

// RetryAfter returns how long from now the issuer wants no requests. It reads both
// forms of the header (RFC 9110 §10.2.3). An invalid value is 0. The caller must limit
// the result.
func (e *Error) RetryAfter(now time.Time) time.Duration {
	if at, err := http.ParseTime(e.retryAfter); err == nil {
		return at.Sub(now)
	}
	seconds, _ := deltaSeconds(e.retryAfter)
	return seconds
}

// queries matches the queries of URLs, which may contain secrets.
var queries = regexp.MustCompile(`\?[^\s"]*`)

func withoutQueries(text string) string { return queries.ReplaceAllString(text, "") }

// absent says that there is no document at an address, so that another address may have
// one.
type absent string

func (a absent) Error() string { return string(a) }

// document is the response of a URL.
type document struct {
	header      http.Header
	body        []byte
	notModified bool
}

func (s *Source) download(ctx context.Context, address, etag string) (*document, *Error) {
	failed := func(err error, retryAfter string) (*document, *Error) {
		return nil, &Error{url: address, err: err, retryAfter: retryAfter}
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return failed(errors.New("not a URL that can be asked"), "")
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	// A cache on the way may still have the keys from before a rotation. With no-cache,
	// which means the same, Logto would never respond with 304.
	r.Header.Set("Cache-Control", "max-age=0")
	r.Header.Set("User-Agent", "m2mauth")
	if etag != "" {
		r.Header.Set("If-None-Match", etag)
	}
	response, err := s.Client.Do(r)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok { // its text has the whole URL
			err = wrapped.Err
		}
		return failed(err, "")
	}
	defer response.Body.Close()
	switch code := response.StatusCode; {
	case code == http.StatusNotModified && etag != "":
		return &document{header: response.Header, notModified: true}, nil
	case code == http.StatusNotModified:
		return failed(errors.New("304 Not Modified, which was not asked for"), "")
	case code == http.StatusNotFound:
		return failed(absent("404 Not Found"), "")
	case code/100 == 4 && code != http.StatusTooManyRequests:
		return failed(absent(fmt.Sprintf("status %d", code)), response.Header.Get("Retry-After"))
	case code != http.StatusOK:
		return failed(fmt.Errorf("status %d", code), response.Header.Get("Retry-After"))
	}
	decoded, err := decode(response)
	if err != nil {
		return failed(err, "")
	}
	body, err := io.ReadAll(io.LimitReader(decoded, maxDocumentBytes+1))
	if err != nil {
		return failed(err, "")
	}
	if len(body) > maxDocumentBytes {
		return failed(errors.New("the document is larger than 1 MiB"), "")
	}
	return &document{header: response.Header, body: body}, nil
}

// decode undoes gzip that the transport left. The transport undoes only what it asked
// for, and some servers compress unasked.
func decode(response *http.Response) (io.Reader, error) {
	coding := strings.Join(response.Header.Values("Content-Encoding"), ", ")
	switch ascii.Lower(strings.Trim(coding, " \t")) {
	case "", "identity":
		return response.Body, nil
	case "gzip", "x-gzip": // RFC 9110 §8.4.1.3
		return gzip.NewReader(response.Body)
	}
	return nil, fmt.Errorf("the document has the content coding %s, which cannot be read", Loggable(coding))
}

// maxAge returns the max-age of a response's Cache-Control. It returns 0 if there is
// none, or if something else in it speaks against caching.
func maxAge(h http.Header) (age time.Duration) {
	seen := false
	for _, directive := range strings.Split(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "no-cache", "no-store":
			return 0
		case "max-age":
			seconds, ok := deltaSeconds(strings.Trim(value, `"`))
			if seen || !ok {
				return 0
			}
			age, seen = seconds, true
		}
	}
	return age
}

// deltaSeconds parses digits only (RFC 9111 §1.2.2). A number out of range is the end
// of the range.
func deltaSeconds(s string) (d time.Duration, ok bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, _ := strconv.ParseUint(s, 10, 31)
	return time.Duration(n) * time.Second, true
}

// SameOrigin reports whether two URLs have the same scheme, host and port (RFC 6454 §4).
func SameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && ascii.Lower(a.Hostname()) == ascii.Lower(b.Hostname()) && Port(a) == Port(b)
}

// sameButForTLS reports whether a URL has the given origin, except for http instead of
// https.
func sameButForTLS(plain, origin *url.URL) bool {
	return plain.Scheme == "http" && ascii.Lower(plain.Hostname()) == ascii.Lower(origin.Hostname()) &&
		(Port(plain) == Port(origin) || Port(plain) == "80" && Port(origin) == "443")
}

// Port returns a URL's port, or its scheme's.
func Port(u *url.URL) string {
	return cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme])
}
