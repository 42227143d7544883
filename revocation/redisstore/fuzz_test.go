package redisstore

import (
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/m2mauth/m2mauth/revocation"
)

// What Redis replies is anybody's who may write to the key. A page is taken if it has no gap and
// begins with what was read last, or else it is an error; neither is a panic.
func FuzzPage(f *testing.F) {
	f.Add(int64(2), int64(2), "1-1", "1-0", "mark", "a", "record", "one", "1-1", "mark", "b", "record", "two", "")
	f.Add(int64(2), int64(2), "1-1", "1-0", "mark", "a", "record", "one", "1-1", "mark", "b", "record", "two", "0.a")
	f.Add(int64(2), int64(2), "1-1", "1-1", "mark", "a", "record", "one", "1-2", "mark", "b", "record", "two", "1.a")
	f.Add(int64(0), int64(0), "0-0", "1-0", "mark", "", "record", "", "1--1", "mark", "", "record", "", "")
	f.Add(int64(1<<62), int64(-1), "1-+1", "1-00", "mark", "a", "mark", "b", "1-9223372036854775807", "", "", "", "", "9.b")
	f.Fuzz(func(t *testing.T, length, added int64, lastID, id1, m1, mark1, r1, record1, id2, m2, mark2, r2, record2, position string) {
		last, err := parsePosition(position)
		if err != nil {
			return
		}
		assert.Equal(t, position, last.position())
		info := []any{"length", length, "radix-tree-keys", int64(1), "entries-added", added, "last-generated-id", lastID}
		entries := []any{
			[]any{id1, []any{m1, mark1, r1, record1}},
			[]any{id2, []any{m2, mark2, r2, record2}},
		}
		for count := range len(entries) + 1 {
			page, err := parsePage(info, entries[:count], last)
			if err != nil {
				assert.Zero(t, page)
				continue
			}
			assert.Equal(t, length, int64(page.Len))
			assert.Equal(t, length, added)
			next, err := parsePosition(page.Next)
			assert.NoError(t, err)
			assert.Equal(t, last.number+int64(len(page.Records)), next.number)
			if last != before {
				assert.Equal(t, "1-"+strconv.FormatInt(last.number, 10), id1)
				assert.Equal(t, last.mark, mark1)
			}
		}
	})
}

func TestRepliesOfAnotherShapeAreDamage(t *testing.T) {
	t.Parallel()
	info := []any{"length", int64(1), "entries-added", int64(1), "last-generated-id", "1-0"}
	entries := []any{[]any{"1-0", []any{"mark", "m", "record", "r"}}}
	page, err := parsePage(info, entries, before)
	assert.NoError(t, err)
	assert.Equal(t, revocation.Page{Records: [][]byte{[]byte("r")}, Next: "0.m", Len: 1}, page)
	for name, replies := range map[string][2]any{
		"no info":              {nil, entries},
		"text as info":         {"OK", entries},
		"an odd info":          {info[:5], entries},
		"no length":            {info[2:], entries},
		"of Redis 6":           {[]any{"length", int64(1), "last-generated-id", "1-0"}, entries},
		"numbers as names":     {[]any{int64(1), int64(1)}, entries},
		"a text as length":     {[]any{"length", "1", "entries-added", int64(1), "last-generated-id", "1-0"}, entries},
		"no list":              {info, nil},
		"a text as list":       {info, "OK"},
		"an entry that is nil": {info, []any{nil}},
		"an entry of one part": {info, []any{[]any{"1-0"}}},
		"a number as ID":       {info, []any{[]any{int64(1), []any{"mark", "m", "record", "r"}}}},
		"fields that are nil":  {info, []any{[]any{"1-0", nil}}},
		"a number as mark":     {info, []any{[]any{"1-0", []any{"mark", int64(1), "record", "r"}}}},
		"a number as record":   {info, []any{[]any{"1-0", []any{"mark", "m", "record", int64(1)}}}},
		"another time":         {info, []any{[]any{"2-0", []any{"mark", "m", "record", "r"}}}},
		"a leading zero":       {info, []any{[]any{"1-00", []any{"mark", "m", "record", "r"}}}},
		"more than there are":  {info, []any{entries[0], entries[0]}},
	} {
		page, err := parsePage(replies[0], replies[1], before)
		assert.ErrorIs(t, err, errDamaged, name)
		assert.Zero(t, page, name)
	}
}
