package memory

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"weak"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// item is a value with all that it is put with.
type item struct {
	name, kept string
	bytes      int64
}

func (i *item) cost() int64 { return i.bytes + int64(len(i.kept)) }

type table = Table[*item]

func put(t *table, i *item) { t.Put(i.name, i.kept, i, i.bytes) }

func get(t *table, name string) *item { i, _ := t.Get(name); return i }

func peek(t *table, name string) *item { i, _ := t.Peek(name); return i }

// newItem returns one with a name that is like a token, and kept as one is: without
// the second half of its signature.
func newItem(i int) *item {
	name := fmt.Sprintf("header.payload of %043d.", i) + fmt.Sprintf("%0128d", i)
	return &item{name: name, kept: name[:len(name)-64], bytes: 700}
}

// contentsOf walks a generation of the shard, whose mutex is held. Each record is
// there once, where a look-up finds it.
func contentsOf(t *testing.T, c *table, s *shard[*item], g *generation[*item]) map[uint64]*record[*item] {
	t.Helper()
	records := make(map[uint64]*record[*item])
	for i := range g.heads {
		for l := g.heads[i].Load(); l != nil; l = l.next {
			assert.NotContains(t, records, l.hash)
			assert.Same(t, l, g.find(l.hash))
			assert.Same(t, s, &c.shards[l.hash%shards])
			records[l.hash] = l.record.Load()
		}
	}
	return records
}

func costOf(records map[uint64]*record[*item]) (sum int64) {
	for _, known := range records {
		sum += known.value.cost()
	}
	return sum
}

// limitOf is the room that a generation has when it is empty.
func limitOf(c *table, g *generation[*item]) int64 {
	if len(g.heads) == 1 && g.heads[0].Load() == nil && g.room == 0 {
		return 0 // that of a shard without values
	}
	return c.limit
}

// assertSound holds what is true of a table whatever happened to it.
func assertSound(t *testing.T, c *table) (kept int) {
	t.Helper()
	bytes := int64(0)
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		g := s.generations.Load()
		young, old := contentsOf(t, c, s, g.young), contentsOf(t, c, s, g.old)
		assert.Equal(t, costOf(young), limitOf(c, g.young)-g.young.room)
		assert.LessOrEqual(t, costOf(young), c.limit)
		assert.LessOrEqual(t, costOf(old), c.limit)
		assert.Len(t, young, g.young.count)
		bytes += costOf(young) + costOf(old)
		for hash := range young {
			delete(old, hash)
		}
		assert.Len(t, old, g.old.count, "a value is counted once")
		kept += len(young) + len(old)
		s.mu.Unlock()
	}
	assert.Equal(t, kept, c.Stats().Kept)
	assert.Equal(t, bytes, c.Stats().Bytes)
	return kept
}

func TestAValueIsFoundByAllOfItsName(t *testing.T) {
	t.Parallel()
	known, other := newItem(1), newItem(2)
	name := known.name
	last := strings.LastIndexByte(name, '.')
	changed := func(at int) string { return name[:at] + string(name[at]^1) + name[at+1:] }
	strangers := map[string]string{
		"another name":                            other.name,
		"its signed part with another signature":  name[:last] + other.name[last:],
		"its signature on other claims":           other.name[:last] + name[last:],
		"a prefix":                                name[:len(name)-1],
		"what is kept of it":                      known.kept,
		"its signed part with an empty signature": name[:last+1],
		"its signed part":                         name[:last],
		"a suffix":                                name[1:],
		"more at the end":                         name + "A",
		"a part more":                             name + ".A",
		"padding at the end":                      name + "=",
		"another character for dot":               name[:last] + "A" + name[last+1:],
		"a bit in the header":                     changed(0),
		"a bit in the payload":                    changed(last - 1),
		"the signature's first bit":               changed(last + 1),
		"the signature's last bit":                changed(len(name) - 1),
		"nothing":                                 "",
	}
	for i := last + 1; i < len(name); i++ {
		strangers[fmt.Sprint("a bit in the signature's character ", i-last)] = changed(i)
	}
	for description, stranger := range strangers {
		t.Run(description, func(t *testing.T) {
			t.Parallel()
			c := New[*item](16 << 20)
			put(c, known)
			assertAbsent := func() {
				t.Helper()
				_, ok := c.Get(stranger)
				assert.False(t, ok)
				_, ok = c.Peek(stranger)
				assert.False(t, ok)
			}
			assertAbsent()

			// Even with the hash of the name that is known, which no caller can
			// bring about.
			knownShard, knownHash := c.shardOf(name)
			r, _ := knownShard.find(knownHash, name)
			s, hash := c.shardOf(stranger)
			young := newGeneration[*item](c.limit)
			young.add(&link[*item]{hash: hash}, r)
			s.generations.Store(&generations[*item]{young: young, old: newGeneration[*item](0)})
			assertAbsent()
		})
	}
	c := New[*item](16 << 20)
	assert.Nil(t, get(c, name))
	put(c, known)
	put(c, other)
	assert.Same(t, known, get(c, name))
	assert.Same(t, other, get(c, other.name))
	assert.Same(t, known, peek(c, name))
	assert.Equal(t, 2, assertSound(t, c))
	whole := &item{name: "all of it is kept", kept: "all of it is kept", bytes: 700}
	put(c, whole)
	assert.Same(t, whole, get(c, whole.name))
	assert.Nil(t, get(c, whole.name+"."))
}

func TestAStreamOfValuesSeenOncePassesByThoseInUse(t *testing.T) {
	t.Parallel()
	c := New[*item](1 << 20)
	hot, idle := newItem(0), newItem(1)
	put(c, hot)
	put(c, idle)
	const stream = 20_000
	for i := range stream {
		put(c, newItem(i+2))
		if i%50 == 0 {
			require.Same(t, hot, get(c, hot.name), i)
		}
	}
	assert.Nil(t, get(c, idle.name), "one that is not in use goes")
	kept := assertSound(t, c)
	assert.Greater(t, kept, 250, "the memory is used")
	assert.EqualValues(t, stream+2-kept, c.Stats().Evicted, "each is counted once, and those that were kept are not")
}

func TestAPeekIsNoUse(t *testing.T) {
	t.Parallel()
	c := New[*item](1 << 20)
	hot := newItem(0)
	put(c, hot)
	for i := 0; peek(c, hot.name) != nil; i++ {
		require.Less(t, i, 20_000, "it goes, though it is looked at")
		put(c, newItem(i+1))
	}
	assert.Zero(t, c.Stats().Hits)
	assert.Zero(t, c.Stats().Misses)
}

// A value in use passes from generation to generation, and with it nothing else does.
func TestAValueInUseHoldsNoDroppedOnes(t *testing.T) {
	t.Parallel()
	c := New[*item](2 * shards * 1000) // so small that the values of a generation share one chain
	versions := itemsOfOneShard(c, 1)
	s, _ := c.shardOf(versions[0][0].name)
	inUse := &item{name: versions[0][0].name, bytes: 300}
	var once []weak.Pointer[item]
	for n := 0; s.evicted.Load() < 20; n++ {
		require.Less(t, n, 20_000)
		i := &item{name: newItem(n).name, bytes: 300}
		if of, _ := c.shardOf(i.name); of != s || i.name == inUse.name {
			continue
		}
		put(c, i)
		once = append(once, weak.Make(i))
		if len(once) == 1 { // in the same chain, so that it would hold what came before
			put(c, inUse)
		}
		require.Same(t, inUse, get(c, inUse.name))
	}
	runtime.GC()
	held := 1 // the one in use
	for _, i := range once {
		if i.Value() != nil {
			held++
		}
	}
	assert.Equal(t, c.Stats().Kept, held)
	runtime.KeepAlive(c)
}

func TestAValuePutTwiceTakesRoomOnce(t *testing.T) {
	t.Parallel()
	c := New[*item](1 << 20)
	for range 10_000 {
		put(c, newItem(1))
	}
	assert.Equal(t, 1, assertSound(t, c))
	known := newItem(1)
	put(c, known)
	assert.Same(t, known, get(c, known.name), "the last one counts")
	larger := newItem(1)
	larger.bytes++
	put(c, larger)
	assert.Same(t, larger, get(c, known.name))
	assertSound(t, c)
}

func TestTooSmallAMemoryKeepsNothing(t *testing.T) {
	t.Parallel()
	for _, bytes := range []int64{0, 1, 2 * shards * 700} {
		c := New[*item](bytes)
		seen := newItem(1)
		put(c, seen)
		assert.Nil(t, get(c, seen.name), bytes)
		assert.Zero(t, assertSound(t, c))
	}
}

func TestAValueMayFillItsRoomToTheLastByte(t *testing.T) {
	t.Parallel()
	seen := newItem(1)
	each := 2 * shards * seen.cost()
	c := New[*item](each)
	require.Equal(t, seen.cost(), c.limit)
	put(c, seen)
	assert.Same(t, seen, get(c, seen.name))
	assert.Equal(t, 1, assertSound(t, c))

	c = New[*item](each - 2*shards) // a byte less
	put(c, seen)
	assert.Nil(t, get(c, seen.name))

	c = New[*item](2 * each)
	put(c, seen)
	shard, _ := c.shardOf(seen.name)
	for i := 2; shard.generations.Load().young.count == 1; i++ {
		other := newItem(i)
		if s, _ := c.shardOf(other.name); s == shard {
			put(c, other)
			require.Equal(t, seen.cost(), other.cost())
			break
		}
	}
	assert.Equal(t, 2, shard.generations.Load().young.count, "both have room in one generation")
	assert.Zero(t, shard.generations.Load().old.count)
}

// heldBytes returns what the heap holds more than when it was made. Not for
// parallel tests.
func heldBytes() func() int64 {
	held := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what pools hold goes in the second
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := held()
	return func() int64 { return held() - before }
}

func TestAMemoryWithoutValuesIsSmall(t *testing.T) {
	held := heldBytes()
	var all [100]*table
	for i := range all {
		all[i] = New[*item](1 << 30)
	}
	assert.Less(t, held()/int64(len(all)), int64(max(16<<10, runtime.GOMAXPROCS(0)<<10+4<<10)))
	runtime.KeepAlive(all)
}

// What Put is told to count covers what the table takes.
func TestTheTableTakesNoMoreThanItSays(t *testing.T) {
	const number, ownBytes = 50_000, 150
	names := make([]string, number)
	for i := range names {
		names[i] = fmt.Sprintf("%064d", i)
	}
	c := New[*item](1 << 30)
	held := heldBytes()
	for _, name := range names {
		c.Put(name, "", nil, 640)
	}
	tables := int64(0) // what is allocated ahead for values to come
	for i := range c.shards {
		tables += int64(8 * len(c.shards[i].generations.Load().young.heads))
	}
	assert.Less(t, held()-tables, int64(number*ownBytes))
	runtime.KeepAlive(names)
	runtime.KeepAlive(c)
}

func TestChainsAreShortHoweverManyValuesThereAre(t *testing.T) {
	t.Parallel()
	for _, values := range []int{1, 1000, 300_000} {
		c := New[*item](int64(2 * values * 640)) // the most of them that this memory takes, in old and young
		for i := range values {
			c.Put(fmt.Sprintf("%064d", i), "", nil, 640)
		}
		for i := range c.shards {
			g := c.shards[i].generations.Load()
			for i := range g.young.heads {
				length := 0
				for l := g.young.heads[i].Load(); l != nil; l = l.next {
					length++
				}
				require.Less(t, length, 20, "of %d", values)
			}
		}
	}
}

// simpleMemory says what a memory does, with maps, and for one goroutine.
type simpleMemory struct {
	limit   int64
	shards  map[*shard[*item]]*[2]map[string]*item // young, old
	evicted int
}

func (m *simpleMemory) get(s *shard[*item], name string) *item {
	g := m.shard(s)
	if i := g[0][name]; i != nil {
		return i
	}
	i := g[1][name]
	if i != nil {
		m.put(s, i)
	}
	return i
}

func (m *simpleMemory) put(s *shard[*item], i *item) {
	g := m.shard(s)
	if i.cost() > m.limit {
		return
	}
	delete(g[1], i.name)
	bytes := i.cost()
	for name, other := range g[0] {
		if name != i.name {
			bytes += other.cost()
		}
	}
	if g[0][i.name] == nil && bytes > m.limit {
		m.evicted += len(g[1])
		g[0], g[1] = make(map[string]*item), g[0]
	}
	g[0][i.name] = i
}

func (m *simpleMemory) shard(s *shard[*item]) *[2]map[string]*item {
	if m.shards[s] == nil {
		m.shards[s] = &[2]map[string]*item{{}, {}}
	}
	return m.shards[s]
}

func (m *simpleMemory) kept() (n int) {
	for _, g := range m.shards {
		n += len(g[0]) + len(g[1])
	}
	return n
}

// itemsOfOneShard returns items of several sizes, each in two versions of one size.
func itemsOfOneShard(c *table, number int) (versions [][2]*item) {
	var only *shard[*item]
	for i := 0; len(versions) < number; i++ {
		first := newItem(i)
		first.bytes += int64(100 * (i % 7))
		s, _ := c.shardOf(first.name)
		if only == nil {
			only = s
		}
		if s == only {
			second := *first
			versions = append(versions, [2]*item{first, &second})
		}
	}
	return versions
}

func TestTheMemoryDoesWhatASimpleOneDoes(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		c := New[*item](2 * shards * (2000 + random.Int64N(12_000))) // one value to a dozen
		m := &simpleMemory{limit: c.limit, shards: make(map[*shard[*item]]*[2]map[string]*item)}
		versions := itemsOfOneShard(c, 30)
		shard, _ := c.shardOf(versions[0][0].name)
		var hits, misses uint64
		for range 2000 {
			version := versions[random.IntN(1+random.IntN(len(versions)))] // some come often
			name := version[0].name
			switch random.IntN(3) {
			case 0:
				known := version[random.IntN(2)]
				put(c, known)
				m.put(shard, known)
			case 1:
				want := m.get(shard, name)
				require.Same(t, want, get(c, name), "seed %d", seed)
				if want != nil {
					hits++
				} else {
					misses++
				}
			case 2:
				g := m.shard(shard)
				require.Equal(t, g[0][name] != nil || g[1][name] != nil, peek(c, name) != nil, "seed %d", seed)
			}
		}
		stats := c.Stats()
		assert.Equal(t, m.kept(), assertSound(t, c), "seed %d", seed)
		assert.Equal(t, Stats{hits, misses, uint64(m.evicted), m.kept(), stats.Bytes}, stats, "seed %d", seed)
	}
}

// Each goroutine uses a value in common before it enters another one, so that it is
// in use in every generation: a generation has room for more values than there are
// goroutines. Whatever moves meanwhile, it is always found.
func TestAValueInUseIsAlwaysFound(t *testing.T) {
	t.Parallel()
	const goroutines, rounds = 8, 2000
	c := New[*item](2 * shards * 40_000)
	versions := itemsOfOneShard(c, 200)
	largest := int64(0)
	for _, version := range versions {
		largest = max(largest, version[0].cost())
	}
	require.Greater(t, c.limit/largest, int64(2*goroutines))
	hot := versions[0][0]
	put(c, hot)
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range rounds {
				if get(c, hot.name) != hot {
					t.Errorf("a value in use is missed")
				}
				version := versions[1+rand.IntN(len(versions)-1)]
				if known := get(c, version[0].name); known != nil && known != version[0] && known != version[1] {
					t.Errorf("one value is taken for another")
				}
				put(c, version[rand.IntN(2)])
			}
		})
	}
	wg.Wait()
	stats := c.Stats()
	assert.Greater(t, stats.Evicted, uint64(1000), "many generations have passed")
	assertSound(t, c)
	assert.EqualValues(t, 2*goroutines*rounds, stats.Hits+stats.Misses, "each look-up is counted once, on whatever core")
}

func TestTheMemoryUnderLoad(t *testing.T) {
	t.Parallel()
	const number = 300
	c := New[*item](200 << 10) // less than they need
	seen := make([]*item, number)
	for i := range seen {
		seen[i] = newItem(i)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5_000 {
				i := seen[rand.IntN(number)]
				if known := get(c, i.name); known == nil {
					put(c, i)
				} else if known != i {
					t.Errorf("one value is taken for another")
				}
			}
		})
	}
	wg.Wait()
	assert.Positive(t, assertSound(t, c))
}

// Cores that count at the same time would wait for each other in one stripe.
func TestGoroutinesCountInStripesOfTheirOwn(t *testing.T) {
	t.Parallel()
	c := newLookups()
	goroutines := len(c.stripes) / 4
	var ready, done sync.WaitGroup
	ready.Add(goroutines)
	for range goroutines {
		done.Go(func() {
			ready.Done()
			ready.Wait() // all have a stack of their own
			for range 10 {
				c.count(true)
				c.count(false)
			}
		})
	}
	done.Wait()
	used, most := 0, uint64(0)
	for i := range c.stripes {
		if hits := c.stripes[i].hits.Load(); hits > 0 {
			used++
			most = max(most, hits)
		}
	}
	hits, misses := c.sum()
	assert.EqualValues(t, 10*goroutines, hits)
	assert.EqualValues(t, 10*goroutines, misses)
	t.Logf("%d goroutines in %d stripes, at most %d in one", goroutines, used, most/10)
	assert.Greater(t, used, goroutines/2)
}
