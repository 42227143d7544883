package m2mauth

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Whatever coding an answer has, the document is what a plain reader makes of it,
// or the reason says which coding that was; and it is 1 MiB at most.
func FuzzContentCoding(f *testing.F) {
	pack := func(text string) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, err := io.WriteString(z, text)
		require.NoError(f, err)
		require.NoError(f, z.Close())
		return b.Bytes()
	}
	for _, coding := range []string{"", "identity", "gzip", "X-GZIP", " gzip ", "gzip, gzip", "br", "deflate", "gzip\x85"} {
		f.Add(coding, pack("{}"))
	}
	f.Add("gzip", []byte("{}"))
	f.Add("gzip", pack(strings.Repeat(" ", maxDocumentBytes+1)))
	f.Add("gzip", append(pack("{"), pack("}")...))
	f.Add("gzip", append(pack("{}"), 0))
	f.Fuzz(func(t *testing.T, coding string, sent []byte) {
		body := &closeCounter{Reader: bytes.NewReader(sent)}
		k, _ := bounded(func(r *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Encoding": {coding}}, Body: body, Request: r}, nil
		})
		doc, err := k.download(t.Context(), "https://issuer.test/jwks", "")
		assert.Positive(t, body.closed)

		want, wantErr := sent, error(nil)
		switch strings.ToLower(strings.Trim(coding, " \t")) {
		case "", "identity":
		case "gzip", "x-gzip":
			var z *gzip.Reader
			if z, wantErr = gzip.NewReader(bytes.NewReader(sent)); wantErr == nil {
				want, wantErr = io.ReadAll(io.LimitReader(z, maxDocumentBytes+1))
			}
		default:
			require.ErrorContains(t, err, "content coding")
			return
		}
		require.Equal(t, wantErr == nil && len(want) <= maxDocumentBytes, err == nil, "%q %x: %v", coding, sent, err)
		if err == nil {
			assert.Equal(t, want, doc.body)
		}
	})
}
