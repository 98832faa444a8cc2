//! What the demo shop talks about. Where an earlier word is to come more often, `Dice::skewed` picks.

pub(super) const CATEGORIES: [&str; 12] =
    ["手机", "美妆", "食品", "服饰", "家居", "Books", "数码", "母婴", "运动", "Pet care", "家电", "珠宝"];

/// Typical price of each category in cents.
pub(super) const PRICES: [u64; 12] =
    [299_900, 15_900, 4_590, 19_900, 12_900, 5_900, 89_900, 16_800, 25_900, 8_800, 189_900, 399_900];

pub(super) const CITIES: [&str; 14] = [
    "上海",
    "北京",
    "深圳",
    "广州",
    "杭州",
    "成都",
    "重庆",
    "武汉",
    "西安",
    "苏州",
    "南京",
    "长沙",
    "青岛",
    "乌鲁木齐",
];

pub(super) const CHANNELS: [&str; 5] = ["app", "mini_program", "web", "livestream", "store"];

pub(super) const PAGES: [&str; 8] = ["home", "product", "search", "category", "cart", "checkout", "profile", "help"];

pub(super) const DEVICES: [&str; 5] = ["android", "ios", "harmony", "desktop", "tablet"];

pub(super) const REFERRERS: [&str; 6] = ["direct", "weixin", "douyin", "baidu", "xiaohongshu", "google"];

pub(super) const LEVELS: [&str; 4] = ["bronze", "silver", "gold", "diamond"];

pub(super) const NOTES: [&str; 6] =
    ["尽快发货🙏", "gift 🎁", "不要香菜😂", "放门口就好", "生日快乐🎂🎉", "请带\"发票\""];

pub(super) const SURNAMES: [&str; 16] =
    ["王", "李", "张", "刘", "陈", "杨", "黄", "赵", "吴", "周", "徐", "孙", "马", "朱", "欧阳", "司马"];

pub(super) const GIVEN_NAMES: [&str; 16] =
    ["伟", "芳", "娜", "敏", "静", "丽", "强", "磊", "洋", "艳", "勇", "军", "子涵", "宇轩", "欣怡", "一诺"];
