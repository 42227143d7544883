package redisstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/m2mauth/m2mauth/revocation"
)

// The log is one stream, so that nothing has to be written to two keys at once, and so
// that it works in a cluster. The IDs of its entries are 1-0, 1-1, 1-2 and so on: what is
// missing shows. Each entry has a random mark beside its record. So two streams that have
// the same numbers, since a failover lost the end of one, are told apart.
const (
	epoch       = "1-"
	markField   = "mark"
	recordField = "record"
)

// errDamaged: the stream is there, and not as this package writes it. Entries were deleted
// or trimmed, or something else wrote to the key.
var errDamaged = errors.New("the log is damaged")

const (
	maxRecord  = 8 << 10
	maxMark    = 64
	maxRecords = 500 // of one Append, and of one Since: 4 MiB
)

// entry is one entry of the stream.
type entry struct {
	number int64 // from 0
	mark   string
	record string
}

// before is what is read last before the first entry.
var before = entry{number: -1}

// position is what the list keeps of an entry: 42.MARK
func (e entry) position() string {
	if e == before {
		return ""
	}
	return strconv.FormatInt(e.number, 10) + "." + e.mark
}

func parsePosition(position string) (entry, error) {
	if position == "" {
		return before, nil
	}
	digits, mark, _ := strings.Cut(position, ".")
	number, err := strconv.ParseInt(digits, 10, 64)
	e := entry{number: number, mark: mark}
	if err != nil || number < 0 || mark == "" || e.position() != position {
		return entry{}, errors.New("redisstore: this position is not one of this store")
	}
	return e, nil
}

func id(number int64) string { return epoch + strconv.FormatInt(number, 10) }

// Append implements [revocation.Store]. If a connection breaks before Redis has answered, the
// log may have the records twice, which a list takes for one.
func (s *Store) Append(ctx context.Context, records ...[]byte) error {
	if len(records) == 0 {
		return nil
	}
	if len(records) > maxRecords {
		return fmt.Errorf("redisstore: %d records are more than the %d of one Append", len(records), maxRecords)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for _, record := range records {
		if len(record) > maxRecord {
			return fmt.Errorf("redisstore: a record of %d bytes is larger than the %d that are allowed", len(record), maxRecord)
		}
	}
	return s.failed("append", s.transaction(ctx, func(commands redis.Pipeliner) {
		for _, record := range records {
			commands.Do(ctx, "xadd", s.key, epoch+"*", markField, rand.Text(), recordField, record)
		}
	}))
}

// Since implements [revocation.Store]. It reads the entry at the position again, which
// must be there as it was: a stream without it was flushed, or lost its end.
func (s *Store) Since(ctx context.Context, position string) (revocation.Page, error) {
	last, err := parsePosition(position)
	if err != nil {
		return revocation.Page{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var info, entries *redis.Cmd
	if err := s.transaction(ctx, func(commands redis.Pipeliner) {
		info = commands.Do(ctx, "xinfo", "stream", s.key)
		entries = commands.Do(ctx, "xrange", s.key, id(max(last.number, 0)), "+", "count", maxRecords)
	}); err != nil {
		if !redis.HasErrorPrefix(err, "no such key") {
			return revocation.Page{}, s.failed("read", err)
		}
		if last == before {
			return revocation.Page{}, nil
		}
		return revocation.Page{}, revocation.ErrGap
	}
	page, err := parsePage(info.Val(), entries.Val(), last)
	if err != nil && err != revocation.ErrGap {
		return revocation.Page{}, s.failed("read", err)
	}
	return page, err
}

// transaction runs commands, all or none. Its error is that of a command which Redis did not
// accept, such as NOPERM, rather than that it ran none.
func (s *Store) transaction(ctx context.Context, add func(redis.Pipeliner)) error {
	return reuse(func() error {
		commands, err := s.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
			add(p)
			return nil
		})
		if redis.IsExecAbortError(err) {
			for _, command := range commands {
				if err := command.Err(); err != nil && !redis.IsExecAbortError(err) {
					return err
				}
			}
		}
		return err
	})
}

// Watch implements [revocation.Store]. Without a deadline it asks once a second.
func (s *Store) Watch(ctx context.Context, position string) error {
	last, err := parsePosition(position)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		atMost := time.Second
		if deadline, ok := ctx.Deadline(); ok {
			atMost = min(atMost, time.Until(deadline))
		}
		// Redis is up to 100 ms late, and go-redis waits for it whatever becomes of ctx.
		type answer struct {
			found bool
			err   error
		}
		answers := make(chan answer, 1)
		go func() {
			found, err := s.wait(context.WithoutCancel(ctx), last, atMost)
			answers <- answer{found, err}
		}()
		select {
		case <-ctx.Done():
		case a := <-answers:
			if a.err != nil {
				return s.failed("watch", a.err)
			}
			if a.found {
				return nil
			}
		}
	}
	return nil
}

// wait reports whether there is an entry after the last one, or comes to be.
func (s *Store) wait(ctx context.Context, last entry, atMost time.Duration) (bool, error) {
	atMost = max(atMost, time.Millisecond) // Redis takes 0 for ever
	after := "0"
	if last != before {
		after = id(last.number)
	}
	ctx, cancel := context.WithTimeout(ctx, atMost+s.timeout)
	defer cancel()
	err := reuse(func() error {
		return s.client.XRead(ctx, &redis.XReadArgs{Streams: []string{s.key}, ID: after, Count: 1, Block: atMost}).Err()
	})
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	return err == nil, err
}

// parsePage reads what follows the entry that was read last.
func parsePage(info, list any, last entry) (revocation.Page, error) {
	length, err := parseInfo(info)
	if err != nil {
		return revocation.Page{}, err
	}
	if last.number >= length {
		return revocation.Page{}, revocation.ErrGap
	}
	entries, err := parseEntries(list, max(last.number, 0), length)
	if err != nil {
		return revocation.Page{}, err
	}
	if last != before {
		if entries[0].mark != last.mark {
			return revocation.Page{}, revocation.ErrGap
		}
		entries = entries[1:]
	}
	page := revocation.Page{Len: int(length)}
	for _, e := range entries {
		page.Records = append(page.Records, []byte(e.record))
		last = e
	}
	page.Next = last.position()
	return page, nil
}

// parseInfo reads how many entries the stream has. None may have been deleted.
func parseInfo(reply any) (length int64, err error) {
	fields, ok := reply.([]any)
	if !ok || len(fields)%2 != 0 {
		return 0, fmt.Errorf("%w: the reply to XINFO is not of Redis 7", errDamaged)
	}
	values := make(map[any]any)
	for i := 0; i < len(fields); i += 2 {
		if name, isName := fields[i].(string); isName {
			values[name] = fields[i+1]
		}
	}
	length, ok = values["length"].(int64)
	added, isNumber := values["entries-added"].(int64)
	last, isID := values["last-generated-id"].(string)
	switch {
	case !ok || !isNumber || !isID:
		return 0, fmt.Errorf("%w: the reply to XINFO is not of Redis 7", errDamaged)
	case length == 0 && added == 0:
		return 0, nil // something made the stream, and added nothing
	case length != added:
		return 0, fmt.Errorf("%w: it has %d of the %d records that were added", errDamaged, length, added)
	case last != id(length-1):
		return 0, fmt.Errorf("%w: its last record has the ID %.40q", errDamaged, last)
	}
	return length, nil
}

// parseEntries reads the entries from a number on, as many as are asked for of what the
// stream has. None may be missing.
func parseEntries(reply any, number, length int64) ([]entry, error) {
	items, _ := reply.([]any)
	if want := min(length-number, maxRecords); int64(len(items)) != want {
		return nil, fmt.Errorf("%w: XRANGE has %d entries from number %d on, not %d", errDamaged, len(items), number, want)
	}
	entries := make([]entry, len(items))
	for i, item := range items {
		e, err := parseEntry(item)
		if err != nil {
			return nil, err
		}
		if e.number != number+int64(i) {
			return nil, fmt.Errorf("%w: entry %d is where entry %d should be", errDamaged, e.number, number+int64(i))
		}
		entries[i] = e
	}
	return entries, nil
}

func parseEntry(item any) (entry, error) {
	pair, _ := item.([]any)
	if len(pair) != 2 {
		return entry{}, fmt.Errorf("%w: an entry is not an ID and fields", errDamaged)
	}
	id, _ := pair[0].(string)
	number, err := parseNumber(id)
	if err != nil {
		return entry{}, err
	}
	fields, _ := pair[1].([]any)
	if len(fields) != 4 || fields[0] != markField || fields[2] != recordField {
		return entry{}, fmt.Errorf("%w: entry %d has other fields than %s and %s", errDamaged, number, markField, recordField)
	}
	mark, _ := fields[1].(string)
	record, isText := fields[3].(string)
	if !isText || mark == "" || len(mark) > maxMark || len(record) > maxRecord {
		return entry{}, fmt.Errorf("%w: entry %d has no mark, or is too large", errDamaged, number)
	}
	return entry{number, mark, record}, nil
}

// parseNumber reads an ID, such as 1-42.
func parseNumber(id string) (int64, error) {
	digits, ok := strings.CutPrefix(id, epoch)
	number, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || number < 0 || strconv.FormatInt(number, 10) != digits {
		return 0, fmt.Errorf("%w: an entry has the ID %.40q", errDamaged, id)
	}
	return number, nil
}
