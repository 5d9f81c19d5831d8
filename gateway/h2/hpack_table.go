package h2

import "golang.org/x/net/http2/hpack"

// fieldOverhead is what RFC 7541 section 4.1 adds to name and value for an
// entry's size. In bytes.
const fieldOverhead = 32

// defaultTableSize is the table that both directions start with, and the most
// that our encoder uses whatever the peer offers. In bytes.
const defaultTableSize = 4096

func (f *Field) size() uint32 { return uint32(len(f.Name) + len(f.Value) + fieldOverhead) }

// fieldTable is a dynamic table, RFC 7541 section 2.3.2. The zero value is an
// empty table of no capacity.
type fieldTable struct {
	fields []Field // oldest first; those before first have been evicted
	first  int
	size   uint32 // sum of the entries' sizes, bytes
	max    uint32 // capacity, bytes
}

func (t *fieldTable) len() int { return len(t.fields) - t.first }

// at returns the i-th newest entry; the newest is 1.
func (t *fieldTable) at(i int) *Field { return &t.fields[len(t.fields)-i] }

// insert evicts what must go and adds f. A field larger than the table empties it.
func (t *fieldTable) insert(f Field) {
	n := f.size()
	if n > t.max {
		t.evict(0)
		return
	}
	t.evict(t.max - n)
	if t.first > 0 && len(t.fields) == cap(t.fields) {
		kept := copy(t.fields, t.fields[t.first:])
		clear(t.fields[kept:])
		t.fields, t.first = t.fields[:kept], 0
	}
	t.fields = append(t.fields, f)
	t.size += n
}

func (t *fieldTable) resize(max uint32) {
	t.max = max
	t.evict(max)
}

// evict drops the oldest entries until at most limit bytes are left.
func (t *fieldTable) evict(limit uint32) {
	for t.size > limit {
		f := &t.fields[t.first]
		t.size -= f.size()
		*f = Field{}
		t.first++
	}
	if t.first == len(t.fields) {
		t.fields, t.first = t.fields[:0], 0
	}
}

// staticTable is RFC 7541 appendix A; index 1 is staticTable[1].
var staticTable = makeStaticTable()

const staticLen = 61

// makeStaticTable asks x/net's decoder for the 61 entries rather than spelling
// them once more.
func makeStaticTable() (t [staticLen + 1]Field) {
	i := 1
	d := hpack.NewDecoder(0, func(f hpack.HeaderField) {
		t[i] = Field{Name: f.Name, Value: f.Value, kind: classify(f.Name, f.Value), hash: fieldHash(f.Name, f.Value)}
		i++
	})
	for n := 1; n <= staticLen; n++ {
		if _, err := d.Write([]byte{0x80 | byte(n)}); err != nil {
			panic("BUG: x/net's static table is shorter than RFC 7541's: " + err.Error())
		}
	}
	return t
}

// staticNames holds the lowest index of each name; staticPairs of each name and
// value by hash.
var (
	staticNames = func() map[string]uint8 {
		m := make(map[string]uint8, staticLen)
		for i := staticLen; i >= 1; i-- {
			m[staticTable[i].Name] = uint8(i)
		}
		return m
	}()
	staticPairs = func() (t [256]uint8) {
		for i := 1; i <= staticLen; i++ {
			slot := uint8(staticTable[i].hash >> 8)
			for t[slot] != 0 {
				slot++
			}
			t[slot] = uint8(i)
		}
		return t
	}()
)

// staticPair returns the index of the entry equal to f, or 0.
func staticPair(f *Field) uint8 {
	for slot := uint8(f.hash >> 8); ; slot++ {
		i := staticPairs[slot]
		if i == 0 {
			return 0
		}
		if e := &staticTable[i]; e.hash == f.hash && e.Name == f.Name && e.Value == f.Value {
			return i
		}
	}
}
