package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// An image is a bbolt file that is read and not mapped, page by page, where
// nothing is believed: whatever the file holds, reading it ends, in an error at
// worst. bbolt itself follows what it finds, into a panic, an endless loop or a
// SIGBUS.
//
// The layout, in the byte order of the machine:
//
//	page     id uint64, kind uint16, count uint16, overflow uint32, elements, their bytes
//	branch   position uint32 (from the element), key size uint32, page uint64
//	leaf     kind uint32, position uint32, key size uint32, value size uint32
//	bucket   as a value: root page uint64, sequence uint64; a page of its own
//	         follows when the root is 0
//	meta     magic, version, page size, flags uint32; root, sequence, freelist,
//	         pages, transaction, checksum (FNV-1a of the fields above) uint64
type image struct {
	r     io.ReaderAt
	pages uint64 // how many the file says it has; never more than it has
	size  int64  // of a page, in bytes
	root  uint64
	free  uint64 // page of the list of free pages, or noFreelist
	used  uint64 // pages that walk came by
	seen  []bool // by page, in a walk
}

const (
	pageHeader   = 16
	pageElement  = 16
	pageBranch   = 0x01
	pageLeaf     = 0x02
	pageFreelist = 0x10

	leafRow    = 0
	leafBucket = 1

	bucketHeader = 16

	metaMagic   = 0xED0CDAED
	metaVersion = 2
	metaSize    = 64
	noFreelist  = ^uint64(0)

	// maxDepth bounds a tree. bbolt's are four high at a gigabyte.
	maxDepth = 40
)

// meta is what one of the first two pages says; the later transaction counts.
type meta struct {
	pageSize                        uint32
	root, freelist, pages, sequence uint64
	transaction                     uint64
}

// openImage reads the file at path up to its meta pages. The caller closes it.
func openImage(path string) (*image, io.Closer, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("read %q: not a regular file", path)
	}
	var im *image
	if err == nil {
		im, err = newImage(file, info.Size())
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return im, file, nil
}

func newImage(r io.ReaderAt, size int64) (*image, error) {
	m, _, err := newestMeta(r, size)
	if err != nil {
		return nil, err
	}
	im := &image{r: r, size: int64(m.pageSize), pages: m.pages, root: m.root, free: m.freelist}
	switch {
	case m.pages > uint64(size/im.size):
		return nil, damagef("cut short: %d bytes, %d pages of %d bytes wanted", size, m.pages, im.size)
	case m.sequence != 0:
		return nil, damagef("meta page: sequence %d, want 0", m.sequence)
	}
	return im, nil
}

// newestMeta returns the valid meta page of the later transaction, and whether both
// are valid. When only one is, that need be no damage: a crash tears a page that
// is being written, and the journal has what it would have said.
func newestMeta(r io.ReaderAt, size int64) (newest meta, both bool, err error) {
	first, err := readMeta(r, 0)
	if err != nil && !Damaged(err) {
		return meta{}, false, err
	}
	if err == nil {
		second, err := readMeta(r, int64(first.pageSize))
		switch {
		case err != nil:
			return first, false, notDamaged(err)
		case second.pageSize != first.pageSize:
			return meta{}, false, damagef("pages of %d and of %d bytes", first.pageSize, second.pageSize)
		case second.transaction > first.transaction:
			return second, true, nil
		}
		return first, true, nil
	}
	// Where the second one is depends on the size of a page, which only it knows.
	for at := int64(1 << 10); at <= 1<<16 && at < size; at <<= 1 {
		second, err := readMeta(r, at)
		if err == nil && int64(second.pageSize) == at {
			return second, false, nil
		}
		if notDamaged(err) != nil {
			return meta{}, false, err
		}
	}
	return meta{}, false, damagef("%d bytes, both meta pages are damaged", size)
}

func notDamaged(err error) error {
	if Damaged(err) {
		return nil
	}
	return err
}

func readMeta(r io.ReaderAt, at int64) (meta, error) {
	page, err := readAt(r, at, pageHeader+metaSize)
	if err != nil {
		return meta{}, err
	}
	b := page[pageHeader:]
	order := binary.NativeEndian
	h := fnv.New64a()
	h.Write(b[:metaSize-8])
	if order.Uint32(b) != metaMagic || h.Sum64() != order.Uint64(b[metaSize-8:]) {
		return meta{}, damagef("meta page at byte %d: its checksum does not match", at)
	}
	if version := order.Uint32(b[4:]); version != metaVersion {
		return meta{}, &newerError{what: fmt.Sprintf("bbolt format %d, this version reads format %d", version, metaVersion)}
	}
	m := meta{
		pageSize: order.Uint32(b[8:]),
		root:     order.Uint64(b[16:]), sequence: order.Uint64(b[24:]),
		freelist: order.Uint64(b[32:]), pages: order.Uint64(b[40:]),
		transaction: order.Uint64(b[48:]),
	}
	if m.pageSize < 1<<10 || m.pageSize > 1<<16 || m.pageSize&(m.pageSize-1) != 0 {
		return meta{}, damagef("meta page at byte %d: pages of %d bytes", at, m.pageSize)
	}
	return m, nil
}

// readAt reads n bytes, which the file ought to have.
func readAt(r io.ReaderAt, at, n int64) ([]byte, error) {
	b := make([]byte, n)
	got, err := r.ReadAt(b, at)
	if got == len(b) {
		return b, nil
	}
	if err == io.EOF {
		return nil, damagef("cut short: %d of %d bytes at byte %d", got, n, at)
	}
	return nil, asDamage(err)
}

// walk yields every row: its bucket, its key and its record, which are lent.
func (im *image) walk(yield func(bucket string, key, record []byte) error) error {
	if err := im.begin(); err != nil {
		return err
	}
	return im.buckets(func(name string, bucket []byte) error {
		return im.bucket(name, bucket, yield)
	})
}

// begin forgets what an earlier walk came by.
func (im *image) begin() error {
	im.seen = make([]bool, im.pages)
	im.used = 2 // the meta pages
	return im.freelist()
}

// buckets yields the names and the values of all buckets.
func (im *image) buckets(yield func(name string, bucket []byte) error) error {
	return im.tree(im.root, nil, nil, 0, func(kind uint32, name, bucket []byte) error {
		if kind != leafBucket {
			return damagef("row %q lies outside of all buckets", name)
		}
		return yield(string(name), bucket)
	})
}

// freelist checks the page that bbolt believes before it checks anything. Ours
// has none; bbolt's own tools make one.
func (im *image) freelist() error {
	if im.free == noFreelist {
		return nil
	}
	page, err := im.page(im.free)
	if err != nil {
		return err
	}
	order := binary.NativeEndian
	count, room := uint64(order.Uint16(page[10:])), uint64(len(page)-pageHeader)/8
	if count == 0xFFFF { // more than fits: the first entry says how many
		count = order.Uint64(page[pageHeader:]) + 1
	}
	if kind := order.Uint16(page[8:]); kind != pageFreelist || count > room {
		return damagef("page %d: kind %#x with %d entries, want a list of free pages", im.free, kind, count)
	}
	return nil
}

// bucket walks the rows of one bucket, whose value in the root it is given.
func (im *image) bucket(name string, value []byte, yield func(bucket string, key, record []byte) error) error {
	if len(value) < bucketHeader {
		return damagef("bucket %q: %d bytes", name, len(value))
	}
	rows := func(kind uint32, key, record []byte) error {
		if kind != leafRow {
			return damagef("bucket %q: holds bucket %q", name, key)
		}
		return yield(name, key, record)
	}
	order := binary.NativeEndian
	if sequence := order.Uint64(value[8:]); sequence != 0 {
		return damagef("bucket %q: sequence %d, want 0", name, sequence)
	}
	if root := order.Uint64(value); root != 0 {
		return im.tree(root, nil, nil, 0, rows)
	}
	page := value[bucketHeader:]
	if len(page) < pageHeader || order.Uint16(page[8:]) != pageLeaf {
		return damagef("bucket %q: the page in it is none", name)
	}
	return eachLeaf(page, 0, nil, nil, rows)
}

// tree walks the tree below a page, whose keys are at least least and, when
// below is not nil, below it.
func (im *image) tree(id uint64, least, below []byte, depth int, leaf func(kind uint32, key, value []byte) error) error {
	if depth > maxDepth {
		return damagef("page %d: a tree of more than %d levels", id, maxDepth)
	}
	page, err := im.page(id)
	if err != nil {
		return err
	}
	switch kind := binary.NativeEndian.Uint16(page[8:]); kind {
	case pageLeaf:
		return eachLeaf(page, id, least, below, leaf)
	case pageBranch:
		return eachBranch(page, id, least, below, func(child uint64, least, below []byte) error {
			return im.tree(child, least, below, depth+1, leaf)
		})
	default:
		return damagef("page %d: kind %#x, want a branch or a leaf", id, kind)
	}
}

// page reads a page with its overflow, for the only time in a walk.
func (im *image) page(id uint64) ([]byte, error) {
	if id < 2 || id >= im.pages {
		return nil, damagef("page %d: the file has pages 2 to %d", id, im.pages-1)
	}
	at := int64(id) * im.size
	header, err := readAt(im.r, at, pageHeader)
	if err != nil {
		return nil, err
	}
	order := binary.NativeEndian
	if found := order.Uint64(header); found != id {
		return nil, damagef("page %d: calls itself page %d", id, found)
	}
	count := 1 + uint64(order.Uint32(header[12:]))
	if count > im.pages-id {
		return nil, damagef("page %d: reaches %d pages beyond the end", id, count-(im.pages-id))
	}
	for other := id; other < id+count; other++ {
		if im.seen[other] {
			return nil, damagef("page %d: used twice", other)
		}
		im.seen[other] = true
	}
	im.used += count
	return readAt(im.r, at, int64(count)*im.size)
}

// eachLeaf yields the elements of a leaf page.
func eachLeaf(page []byte, id uint64, least, below []byte, yield func(kind uint32, key, value []byte) error) error {
	order := binary.NativeEndian
	keys := keyOrder{id: id, last: least, below: below}
	for i := range int(order.Uint16(page[10:])) {
		element, err := element(page, id, i)
		if err != nil {
			return err
		}
		kind, position := order.Uint32(element), order.Uint32(element[4:])
		keySize, valueSize := order.Uint32(element[8:]), order.Uint32(element[12:])
		end := uint64(position) + uint64(keySize) + uint64(valueSize)
		if kind > leafBucket || position < pageElement || end > uint64(len(element)) {
			return damagef("page %d: element %d lies outside of it", id, i)
		}
		data := element[position:end]
		key, value := data[:keySize:keySize], data[keySize:]
		if err := keys.next(key); err != nil {
			return err
		}
		if err := yield(kind, key, value); err != nil {
			return err
		}
	}
	return nil
}

// eachBranch yields the pages below a branch page, and the bounds of their keys.
func eachBranch(page []byte, id uint64, least, below []byte, yield func(child uint64, least, below []byte) error) error {
	order := binary.NativeEndian
	count := int(order.Uint16(page[10:]))
	if count == 0 {
		return damagef("page %d: a branch without leaves", id)
	}
	keys := keyOrder{id: id, last: least, below: below}
	bounds, children := make([][]byte, count+1), make([]uint64, count)
	for i := range count {
		element, err := element(page, id, i)
		if err != nil {
			return err
		}
		position, size := order.Uint32(element), order.Uint32(element[4:])
		end := uint64(position) + uint64(size)
		if position < pageElement || end > uint64(len(element)) {
			return damagef("page %d: element %d lies outside of it", id, i)
		}
		bounds[i], children[i] = element[position:end:end], order.Uint64(element[8:])
		if err := keys.next(bounds[i]); err != nil {
			return err
		}
	}
	bounds[count] = below
	for i, child := range children {
		if err := yield(child, bounds[i], bounds[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// element returns a page from its i-th element on.
func element(page []byte, id uint64, i int) ([]byte, error) {
	at := pageHeader + i*pageElement
	if at+pageElement > len(page) {
		return nil, damagef("page %d: element %d lies outside of it", id, i)
	}
	return page[at:], nil
}

// keyOrder checks that the keys of a page ascend within their bounds: else a
// search would miss some of them.
type keyOrder struct {
	id          uint64
	last, below []byte
	begun       bool
}

func (o *keyOrder) next(key []byte) error {
	against := bytes.Compare(o.last, key)
	if against > 0 || against == 0 && o.begun || o.below != nil && bytes.Compare(key, o.below) >= 0 {
		return damagef("page %d: key %q is out of order", o.id, key)
	}
	o.last, o.begun = key, true
	return nil
}
