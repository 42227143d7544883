package m2mauth_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/m2mauth/m2mauth"
)

// Those who wait for another's check of the same new token are counted: half of
// 8,192 from one source, and a source that wants less displaces one that has most.
func TestWaitersOnOneNewTokenAreBounded(t *testing.T) {
	t.Parallel()
	keysBubble(t, func(t *testing.T) {
		issuer, guard, release := crowded(t)
		token := issuer.Token(shop, "read")
		send := func(source, number int) (answers []<-chan *httptest.ResponseRecorder) {
			for range number {
				answers = append(answers, ask(t.Context(), guard, fmt.Sprintf("192.0.2.%d:1", source), token))
			}
			synctest.Wait()
			return answers
		}
		begin := time.Now()
		busy := func(answers []<-chan *httptest.ResponseRecorder) (n int) {
			for _, answer := range answers {
				if len(answer) > 0 {
					n++
				}
			}
			return n
		}
		first := send(1, 18_600)
		assert.Equal(t, 18_600-1-4096, busy(first))
		second := send(2, 4100)
		assert.Equal(t, 4100-4096, busy(second))
		innocent := send(3, 100)
		assert.Zero(t, busy(innocent))
		assert.Equal(t, 18_600-1-4096+4+100, busy(first)+busy(second))
		assert.Equal(t, 8192, m2mauth.TracesOf(guard).Sharing)
		assert.EqualValues(t, 18_600-1-4096+4+100, guard.Stats().Refused)
		assert.Zero(t, time.Since(begin))
		release()
		for i, answers := range [][]<-chan *httptest.ResponseRecorder{first, second, innocent} {
			for _, answer := range answers {
				if w := <-answer; w.Code != http.StatusOK {
					assertTryLater(t, w, http.StatusTooManyRequests)
					assert.NotEqual(t, 2, i)
				}
			}
		}
		assert.Equal(t, m2mauth.Untouched(), m2mauth.TracesOf(guard))
	})
}
