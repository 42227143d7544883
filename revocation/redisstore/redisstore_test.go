package redisstore_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/m2mauth/m2mauth/internal/test/redisserver"
	"github.com/m2mauth/m2mauth/revocation"
	"github.com/m2mauth/m2mauth/revocation/redisstore"
)

const key = "{m2mauth}:revocations"

func newStore(t testing.TB, config redisstore.Config) *redisstore.Store {
	t.Helper()
	store, err := redisstore.New(config)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, store.Close()) })
	return store
}

func admin(t testing.TB, server *redisserver.Server) *redis.Client {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: server.Addr})
	t.Cleanup(func() { assert.NoError(t, client.Close()) })
	return client
}

func add(t testing.TB, store *redisstore.Store, records ...string) {
	t.Helper()
	data := make([][]byte, len(records))
	for i, record := range records {
		data[i] = []byte(record)
	}
	require.NoError(t, store.Append(t.Context(), data...))
}

// all reads the log from a position to its end.
func all(t testing.TB, store *redisstore.Store, position string) (records []string, next string) {
	t.Helper()
	for {
		page, err := store.Since(t.Context(), position)
		require.NoError(t, err)
		for _, record := range page.Records {
			records = append(records, string(record))
		}
		if len(page.Records) == 0 {
			assert.Equal(t, position, page.Next)
			return records, position
		}
		position = page.Next
	}
}

func TestRecordsComeBackInOrderAndInPages(t *testing.T) {
	t.Parallel()
	store := newStore(t, redisstore.Config{Address: redisserver.Start(t).Addr})
	page, err := store.Since(t.Context(), "")
	require.NoError(t, err)
	assert.Zero(t, page, "no log yet")

	var want []string
	for batch := range 3 {
		var records []string
		for i := range 500 {
			records = append(records, fmt.Sprintf("%d of %d", i, batch))
		}
		add(t, store, records...)
		want = append(want, records...)
	}
	page, err = store.Since(t.Context(), "")
	require.NoError(t, err)
	assert.Len(t, page.Records, 500, "a page is bounded")
	assert.Equal(t, 1500, page.Len)
	got, next := all(t, store, "")
	assert.Equal(t, want, got)

	add(t, store, "later\x00\xff", "")
	got, _ = all(t, store, next)
	assert.Equal(t, []string{"later\x00\xff", ""}, got)
}

func TestWhatIsTooLargeIsNotAppended(t *testing.T) {
	t.Parallel()
	store := newStore(t, redisstore.Config{Address: redisserver.Start(t).Addr})
	add(t, store, strings.Repeat("x", 8192))
	assert.ErrorContains(t, store.Append(t.Context(), []byte("small"), make([]byte, 8193)), "larger")
	assert.ErrorContains(t, store.Append(t.Context(), make([][]byte, 501)...), "501 records")
	got, _ := all(t, store, "")
	assert.Len(t, got, 1)
}

// What a Redis may do to a log behind the back of who reads it.
func TestALogThatIsNotTheOneThatWasReadIsNoticed(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	for name, test := range map[string]struct {
		damage func(t *testing.T, client *redis.Client, store *redisstore.Store, key string)
		// What Since says with the position of the last record, with that of the first,
		// and with none: ErrGap, an error with these words, or nil.
		last, first, none string
	}{
		"untouched": {func(*testing.T, *redis.Client, *redisstore.Store, string) {}, "", "", ""},
		"flushed or evicted": {func(t *testing.T, client *redis.Client, _ *redisstore.Store, key string) {
			require.NoError(t, client.Del(t.Context(), key).Err())
		}, "gap", "gap", ""},
		"flushed, and as long as before since": {func(t *testing.T, client *redis.Client, store *redisstore.Store, key string) {
			require.NoError(t, client.Del(t.Context(), key).Err())
			add(t, store, "one", "two", "three")
		}, "gap", "gap", ""},
		"its end lost, as in a failover": {func(t *testing.T, client *redis.Client, store *redisstore.Store, key string) {
			first, err := client.XRangeN(t.Context(), key, "-", "+", 1).Result()
			require.NoError(t, err)
			require.NoError(t, client.Del(t.Context(), key).Err())
			require.NoError(t, client.XAdd(t.Context(), &redis.XAddArgs{Stream: key, ID: "1-0",
				Values: []any{"mark", first[0].Values["mark"], "record", first[0].Values["record"]}}).Err())
		}, "gap", "", ""},
		"trimmed": {func(t *testing.T, client *redis.Client, _ *redisstore.Store, key string) {
			require.NoError(t, client.XTrimMaxLen(t.Context(), key, 2).Err())
		}, "2 of the 3", "2 of the 3", "2 of the 3"},
		"trimmed to nothing": {func(t *testing.T, client *redis.Client, _ *redisstore.Store, key string) {
			require.NoError(t, client.XTrimMaxLen(t.Context(), key, 0).Err())
		}, "0 of the 3", "0 of the 3", "0 of the 3"},
		"one deleted in the middle": {func(t *testing.T, client *redis.Client, _ *redisstore.Store, key string) {
			require.NoError(t, client.XDel(t.Context(), key, "1-1").Err())
		}, "2 of the 3", "2 of the 3", "2 of the 3"},
		"the last one deleted": {func(t *testing.T, client *redis.Client, _ *redisstore.Store, key string) {
			require.NoError(t, client.XDel(t.Context(), key, "1-2").Err())
		}, "2 of the 3", "2 of the 3", "2 of the 3"},
		"one deleted, and the count forged": {func(t *testing.T, client *redis.Client, _ *redisstore.Store, key string) {
			require.NoError(t, client.XDel(t.Context(), key, "1-1").Err())
			require.NoError(t, client.Do(t.Context(), "xsetid", key, "1-2", "entriesadded", "2").Err())
		}, "last record", "last record", "last record"},
		"an entry of somebody else": {func(t *testing.T, client *redis.Client, _ *redisstore.Store, key string) {
			require.NoError(t, client.XAdd(t.Context(), &redis.XAddArgs{Stream: key, Values: []any{"mark", "m", "record", "r"}}).Err())
		}, "last record", "last record", "last record"},
		"an entry with another field": {func(t *testing.T, client *redis.Client, _ *redisstore.Store, key string) {
			require.NoError(t, client.XAdd(t.Context(), &redis.XAddArgs{Stream: key, ID: "1-*", Values: []any{"mark", "m", "record", "r", "more", ""}}).Err())
		}, "other fields", "other fields", "other fields"},
		"an entry with a field twice": {func(t *testing.T, client *redis.Client, _ *redisstore.Store, key string) {
			require.NoError(t, client.XAdd(t.Context(), &redis.XAddArgs{Stream: key, ID: "1-*", Values: []any{"mark", "m", "mark", "r"}}).Err())
		}, "other fields", "other fields", "other fields"},
		"an entry without a mark": {func(t *testing.T, client *redis.Client, _ *redisstore.Store, key string) {
			require.NoError(t, client.XAdd(t.Context(), &redis.XAddArgs{Stream: key, ID: "1-*", Values: []any{"mark", "", "record", "r"}}).Err())
		}, "no mark", "no mark", "no mark"},
		"an entry that is too large": {func(t *testing.T, client *redis.Client, _ *redisstore.Store, key string) {
			require.NoError(t, client.XAdd(t.Context(), &redis.XAddArgs{Stream: key, ID: "1-*", Values: []any{"mark", "m", "record", strings.Repeat("r", 8193)}}).Err())
		}, "too large", "too large", "too large"},
		"another kind of value": {func(t *testing.T, client *redis.Client, _ *redisstore.Store, key string) {
			require.NoError(t, client.Set(t.Context(), key, "text", 0).Err())
		}, "WRONGTYPE", "WRONGTYPE", "WRONGTYPE"},
		"made by something else, and empty": {func(t *testing.T, client *redis.Client, _ *redisstore.Store, key string) {
			require.NoError(t, client.Del(t.Context(), key).Err())
			require.NoError(t, client.XGroupCreateMkStream(t.Context(), key, "group", "$").Err())
		}, "gap", "gap", ""},
	} {
		t.Run(name, func(t *testing.T) {
			key := "list:" + name
			store := newStore(t, redisstore.Config{Address: server.Addr, Key: key})
			add(t, store, "first")
			first, err := store.Since(t.Context(), "")
			require.NoError(t, err)
			add(t, store, "second", "third")
			_, last := all(t, store, "")
			test.damage(t, admin(t, server), store, key)
			for position, want := range map[string]string{last: test.last, first.Next: test.first, "": test.none} {
				_, err := store.Since(t.Context(), position)
				switch want {
				case "":
					assert.NoError(t, err, "%q", position)
				case "gap":
					assert.ErrorIs(t, err, revocation.ErrGap, "%q", position)
				default:
					assert.ErrorContains(t, err, want, "%q", position)
					assert.NotErrorIs(t, err, revocation.ErrGap, "%q", position)
				}
			}
		})
	}
}

func TestPositionsOfAnotherStoreAreRefused(t *testing.T) {
	t.Parallel()
	store := newStore(t, redisstore.Config{Address: "127.0.0.1:1"})
	for _, position := range []string{"1", "1.", ".x", "-1.x", "01.x", "+1.x", "x.x", "99999999999999999999.x"} {
		_, err := store.Since(t.Context(), position)
		assert.ErrorContains(t, err, "not one of this store", position)
		assert.ErrorContains(t, store.Watch(t.Context(), position), "not one of this store", position)
	}
}

func TestWatchReturnsWithNewsAndAtItsDeadline(t *testing.T) {
	t.Parallel()
	store := newStore(t, redisstore.Config{Address: redisserver.Start(t).Addr})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	require.NoError(t, store.Watch(ctx, ""))
	assert.Error(t, ctx.Err(), "there was no news")

	add(t, store, "one")
	require.NoError(t, store.Watch(t.Context(), ""), "what is there is news")
	_, position := all(t, store, "")
	news := make(chan error)
	go func() { news <- store.Watch(t.Context(), position) }()
	add(t, store, "two")
	require.NoError(t, <-news)
}

// Redis has seconds to answer. A list that is stopped does not wait for that.
func TestWatchReturnsAtOnceWhenItIsCancelled(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	store := newStore(t, redisstore.Config{Address: listener.Addr().String(), Timeout: 10 * time.Second})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watched := make(chan error)
	go func() { watched <- store.Watch(ctx, "") }()
	conn, err := listener.Accept()
	require.NoError(t, err)
	defer conn.Close()
	cancel()
	select {
	case err := <-watched:
		assert.NoError(t, err)
	case <-time.After(8 * time.Second):
		assert.Fail(t, "it waits for Redis")
	}
}

// Every appended record is there after SIGKILL, and who reads on needs no new store.
func TestAKilledServerKeepsWhatWasAppended(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	store := newStore(t, redisstore.Config{Address: server.Addr})
	var want []string
	position := ""
	for i := range 5 {
		record := fmt.Sprint(i)
		want = append(want, record)
		add(t, store, record)
		server.Kill()
		_, err := store.Since(t.Context(), position)
		require.Error(t, err)
		assert.NotErrorIs(t, err, revocation.ErrGap, "away is not empty")
		require.Error(t, store.Append(t.Context(), []byte("nobody takes it")))
		require.Error(t, store.Watch(t.Context(), position))
		server.Run()
		require.Eventually(t, func() bool {
			_, err := store.Since(t.Context(), position)
			return err == nil
		}, 10*time.Second, 10*time.Millisecond)
		var got []string
		got, position = all(t, store, position)
		assert.Equal(t, []string{record}, got)
	}
	got, _ := all(t, store, "")
	assert.Equal(t, want, got)

	server.Kill()
	server.Empty()
	server.Run()
	require.Eventually(t, func() bool {
		_, err := store.Since(t.Context(), position)
		return err == revocation.ErrGap
	}, 10*time.Second, 10*time.Millisecond)
}

// However often it was asked for in vain, a server that is back is used at once.
func TestAServerThatIsBackIsUsedAtOnce(t *testing.T) {
	t.Parallel()
	server := redisserver.Start(t)
	store := newStore(t, redisstore.Config{Address: server.Addr})
	server.Kill()
	for range 100 {
		require.ErrorContains(t, store.Append(t.Context(), []byte("x")), "connection refused")
	}
	server.Run()
	add(t, store, "one")
	got, _ := all(t, store, "")
	assert.Equal(t, []string{"one"}, got)
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	const password = "correct horse battery staple"
	for name, test := range map[string]struct {
		config redisstore.Config
		want   []string // none: it is good
	}{
		"nothing":                {redisstore.Config{}, []string{"Address is required"}},
		"loopback":               {redisstore.Config{Address: "127.0.0.2:6379"}, nil},
		"loopback of version 6":  {redisstore.Config{Address: "[::1]:6379"}, nil},
		"localhost":              {redisstore.Config{Address: "localhost:6379"}, nil},
		"a socket":               {redisstore.Config{Address: "/run/redis.sock"}, nil},
		"another host":           {redisstore.Config{Address: "redis:6379"}, []string{"TLS is required", "Password is required"}},
		"not quite localhost":    {redisstore.Config{Address: "localhost.example:6379"}, []string{"TLS is required", "Password is required"}},
		"another host, TLS":      {redisstore.Config{Address: "redis:6379", TLS: &tls.Config{}}, []string{"Password is required"}},
		"another host, password": {redisstore.Config{Address: "redis:6379", Password: password}, []string{"TLS is required"}},
		"another host, both":     {redisstore.Config{Address: "redis:6379", Password: password, TLS: &tls.Config{}}, nil},
		"an unchecked certificate": {redisstore.Config{Address: "redis:6379", Password: password, TLS: &tls.Config{InsecureSkipVerify: true}},
			[]string{"InsecureSkipVerify"}},
		"a URL":     {redisstore.Config{Address: "redis://:" + password + "@redis:6379"}, []string{"must be host:port"}},
		"no port":   {redisstore.Config{Address: "localhost"}, []string{"must be host:port"}},
		"a cluster": {redisstore.Config{Address: "localhost:6379", Cluster: true}, nil},
		"a cluster's database": {redisstore.Config{Address: "/run/redis.sock", Cluster: true, Database: 1},
			[]string{"must be 0 in a cluster", "host:port in a cluster"}},
		"all else": {redisstore.Config{Address: "localhost:1", Username: "u", Database: -1, Timeout: 11 * time.Second},
			[]string{"Username needs a Password", "Database must not be negative", "Timeout must be from 0 to 10s"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, err := redisstore.New(test.config)
			if len(test.want) == 0 {
				require.NoError(t, err)
				require.NoError(t, store.Close())
				return
			}
			require.Error(t, err)
			for _, words := range test.want {
				assert.ErrorContains(t, err, words)
			}
			assert.Len(t, strings.Split(err.Error(), "\n"), len(test.want))
			assert.NotContains(t, err.Error(), password)
		})
	}
}
