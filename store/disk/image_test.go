package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
)

// FuzzImage reads files of rows of which any bytes are changed, each by three bytes
// of the input: where, and to what. Pages that hang together in any way end in an
// error at worst, and never in rows that a search would miss. The meta pages are
// sealed, else nothing would get behind them.
func FuzzImage(f *testing.F) {
	var files [][]byte
	for i, rows := range []int{0, 3, 60} {
		files = append(files, smallPages(f, rows))
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i), []byte{10, 0, 255, 0, 12, 3}) // counts of elements
		f.Add(uint8(i), []byte{34, 0, 2, 34, 4, 2})   // roots
	}
	f.Fuzz(func(t *testing.T, which uint8, patches []byte) {
		b := slices.Clone(files[int(which)%len(files)])
		for ; len(patches) >= 3; patches = patches[3:] {
			b[int(binary.LittleEndian.Uint16(patches))%len(b)] = patches[2]
		}
		sealMetas(b)
		mustBeReadable(t, b)
	})
}

func mustBeReadable(t *testing.T, b []byte) {
	t.Helper()
	im, err := newImage(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		mustBeVerdict(t, err)
		return
	}
	var last []byte
	var lastBucket string
	mustBeVerdict(t, im.walk(func(bucket string, key, _ []byte) error {
		if bucket == lastBucket && bytes.Compare(last, key) >= 0 {
			t.Errorf("bucket %q: row %q follows row %q", bucket, key, last)
		}
		last, lastBucket = key, bucket
		return nil
	}))
	_, err = im.verify(nil)
	mustBeVerdict(t, err)
}

func mustBeVerdict(t *testing.T, err error) {
	t.Helper()
	if err != nil && !Damaged(err) && !newer(err) {
		t.Errorf("neither good nor damaged: %v", err)
	}
}

// TestImageNamesWhatIsWrong changes a field of a file of many small pages.
func TestImageNamesWhatIsWrong(t *testing.T) {
	order := binary.NativeEndian
	whole := smallPages(t, 60)
	im, err := newImage(bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	// The root has a bucket whose root is a branch, and that a leaf.
	page := func(b []byte, id uint64) []byte { return b[int64(id)*im.size:][:im.size] }
	root := func(b []byte) []byte { return page(b, im.root) }
	bucket := func(b []byte) []byte { // as a value in the root
		e := root(b)[pageHeader:]
		return e[order.Uint32(e[4:])+order.Uint32(e[8:]):]
	}
	branch := func(b []byte) []byte { return page(b, order.Uint64(bucket(b))) }
	leaf := func(b []byte) []byte { return page(b, order.Uint64(branch(b)[pageHeader+8:])) }
	if kind := order.Uint16(branch(whole)[8:]); kind != pageBranch {
		t.Fatalf("page of kind %#x, want a branch", kind)
	}
	for _, tt := range []struct {
		name string
		do   func(b []byte)
		want string
	}{
		{"nothing", func([]byte) {}, ""},
		{"number", func(b []byte) { leaf(b)[0] ^= 64 }, "calls itself page"},
		{"kind", func(b []byte) { leaf(b)[8] = pageFreelist }, "kind 0x10, want a branch or a leaf"},
		{"overflow", func(b []byte) { leaf(b)[12] = 200 }, "pages beyond the end"},
		{"overflow over another", func(b []byte) { leaf(b)[12] = 1 }, "used twice"},
		{"used twice", func(b []byte) { copy(branch(b)[pageHeader+8+pageElement:], branch(b)[pageHeader+8:][:8]) }, "used twice"},
		{"loop", func(b []byte) { order.PutUint64(branch(b)[pageHeader+8:], order.Uint64(bucket(b))) }, "used twice"},
		{"page that is none", func(b []byte) { order.PutUint64(branch(b)[pageHeader+8:], 1<<40) }, "the file has pages 2 to"},
		{"meta page as a leaf", func(b []byte) { order.PutUint64(branch(b)[pageHeader+8:], 1) }, "the file has pages 2 to"},
		{"branch without leaves", func(b []byte) { branch(b)[10] = 0 }, "a branch without leaves"},
		{"too many elements", func(b []byte) { leaf(b)[11] = 1 }, "lies outside of it"},
		{"too many branches", func(b []byte) { branch(b)[11] = 1 }, "lies outside of it"},
		{"element outside", func(b []byte) { leaf(b)[pageHeader+6] = 1 }, "element 0 lies outside of it"},
		{"branch outside", func(b []byte) { branch(b)[pageHeader+2] = 1 }, "element 0 lies outside of it"},
		{"element of no kind", func(b []byte) { leaf(b)[pageHeader] = 2 }, "element 0 lies outside of it"},
		{"row as a bucket", func(b []byte) { leaf(b)[pageHeader] = leafBucket }, "holds bucket"},
		{"bucket as a row", func(b []byte) { root(b)[pageHeader] = leafRow }, "lies outside of all buckets"},
		{"sequence of a bucket", func(b []byte) { bucket(b)[8] = 1 }, "sequence 1, want 0"},
		{"inline page that is none", func(b []byte) { order.PutUint64(bucket(b), 0) }, "the page in it is none"},
		{"short bucket", func(b []byte) { root(b)[pageHeader+12] = 3 }, "3 bytes"},
		{"keys out of order", func(b []byte) {
			e := leaf(b)[pageHeader:]
			e[order.Uint32(e[4:])] = 'z'
		}, "is out of order"},
		{"key below its branch", func(b []byte) {
			e := leaf(b)[pageHeader:]
			e[order.Uint32(e[4:])] = 'a'
		}, "is out of order"},
		{"key twice", func(b []byte) {
			e := leaf(b)[pageHeader:]
			next := e[pageElement:]
			copy(next[order.Uint32(next[4:]):], e[order.Uint32(e[4:]):][:order.Uint32(e[8:])])
		}, "is out of order"},
		{"branches out of order", func(b []byte) {
			e := branch(b)[pageHeader+pageElement:]
			e[order.Uint32(e)] = 'a'
		}, "is out of order"},
		{"sequence of the root", func(b []byte) { b[pageHeader+24], b[1024+pageHeader+24] = 1, 1 }, "meta page: sequence 1, want 0"},
		{"pages too large", func(b []byte) { b[pageHeader+10], b[1024+pageHeader+10] = 2, 2 }, "both meta pages are damaged"},
		{"pages of two sizes", func(b []byte) { b[1024+pageHeader+9] = 8 }, "pages of 1024 and of 2048 bytes"},
		{"list of free pages", func(b []byte) {
			clear(b[pageHeader+32 : pageHeader+40])
			b[pageHeader+32] = byte(order.Uint64(bucket(b)))
			copy(b[1024+pageHeader+32:], b[pageHeader+32:pageHeader+40])
		}, "want a list of free pages"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := slices.Clone(whole)
			tt.do(b)
			sealMetas(b)
			im, err := newImage(bytes.NewReader(b), int64(len(b)))
			if err == nil {
				err = im.walk(func(string, []byte, []byte) error { return nil })
			}
			if (err == nil) != (tt.want == "") || err != nil && (!Damaged(err) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("walk: %v, want %q in it", err, tt.want)
			}
		})
	}
}

// smallPages returns a file of as small pages as bbolt makes.
func smallPages(t testing.TB, rows int) []byte {
	t.Helper()
	path := filepath.Join(inMemory(t), "small")
	bolt, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: 1024, NoFreelistSync: true, NoSync: true, NoGrowSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = bolt.Update(func(btx *bbolt.Tx) error {
		tx := &Tx{bolt: btx}
		for i := range rows {
			if err := tx.Put(fmt.Sprint("bucket", i%2), fmt.Appendf(nil, "key%03d", i), make([]byte, 2*i)); err != nil {
				return err
			}
		}
		return tx.putState()
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := bolt.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	im, err := newImage(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := im.verify(nil); err != nil {
		t.Fatal(err)
	}
	return b[:int64(im.pages)*im.size]
}

// sealMetas gives meta pages the checksum that they ought to have.
func sealMetas(b []byte) {
	for _, at := range []int{0, 1024} {
		if len(b) < at+pageHeader+metaSize {
			return
		}
		meta := b[at+pageHeader:]
		h := fnv.New64a()
		h.Write(meta[:metaSize-8])
		binary.NativeEndian.PutUint64(meta[metaSize-8:], h.Sum64())
	}
}

// badSector is a file of which one byte cannot be read any more.
type badSector struct {
	io.ReaderAt
	at int64
}

func (r badSector) ReadAt(b []byte, at int64) (int, error) {
	if at <= r.at && r.at < at+int64(len(b)) {
		return 0, &os.PathError{Op: "read", Path: "rows", Err: syscall.EIO}
	}
	return r.ReaderAt.ReadAt(b, at)
}

// TestImageOfBadSectorIsDamaged loses one of all pages in turn. One of the meta
// pages is enough.
func TestImageOfBadSectorIsDamaged(t *testing.T) {
	whole := smallPages(t, 60)
	for at := int64(1050); at < int64(len(whole)); at += 1024 {
		im, err := newImage(badSector{bytes.NewReader(whole), at}, int64(len(whole)))
		if err == nil {
			_, err = im.verify(nil)
		}
		if err != nil && !Damaged(err) || err == nil && at > 2048 && im.seen[at/1024] {
			t.Errorf("bad sector at byte %d: %v, want damage", at, err)
		}
	}
}
