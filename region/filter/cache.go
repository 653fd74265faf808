package filter

import (
	lru "container/list"
	"sync"
)

// Cache remembers the filters used last: parsing one takes as long as trying it on a
// thousand instances, and the same ones come again and again. Safe for concurrent use.
type Cache struct {
	most int

	mu     sync.Mutex
	byText map[string]*lru.Element // of *Filter
	used   *lru.List               // newest first
}

// NewCache returns a cache of at most most filters.
func NewCache(most int) *Cache {
	return &Cache{most: most, byText: map[string]*lru.Element{}, used: lru.New()}
}

// Parse is the function Parse, remembered. Errors are not.
func (c *Cache) Parse(text string) (*Filter, error) {
	if f := c.get(text); f != nil {
		return f, nil
	}
	f, err := Parse(text)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byText[text]; e != nil {
		return e.Value.(*Filter), nil
	}
	c.byText[text] = c.used.PushFront(f)
	if c.used.Len() > c.most {
		delete(c.byText, c.used.Remove(c.used.Back()).(*Filter).text)
	}
	return f, nil
}

func (c *Cache) get(text string) *Filter {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byText[text]
	if e == nil {
		return nil
	}
	c.used.MoveToFront(e)
	return e.Value.(*Filter)
}
