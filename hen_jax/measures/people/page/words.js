"use strict";
// What the pages say, in both languages.
const WORDS = {
  en: {
    title: "Rating", consent: "You are asked to read short texts and to say what you think of them. " +
      "Some are about painful things. You may stop at any time. What you answer stays on the computer " +
      "that runs this page, under the name in your link, and you can download or delete it here.",
    agree: "I agree, begin", prompt: "What was said", reply: "Reply", ratings: "How good is this?",
    choices: "Which reply is better?", a: "A is better", b: "B is better", tie: "Equal",
    bad: "Both bad", comment: "Comment (not required)", send: "Send", undo: "Undo the last one",
    checks: "What holds?", end: "That was the last one. Thank you.", error: "Not kept: ",
    local: "Your answers are kept on this computer only.", export: "Download my answers",
    remove: "Delete my answers", sure: "Delete all your answers? This cannot be undone.",
    count: (done, total) => `${done} of ${total}`, keysRatings: "Keys: the numbers; U undoes",
    keysSend: "Keys: the numbers, Enter sends, U undoes", low: "worst", high: "best",
    keysChoices: "Keys: A, B, T (equal), N (both bad); U undoes",
    keysChoicesSend: "Keys: A, B, T (equal), N (both bad), Enter sends, U undoes", offline: "The page's server does not answer.",
    session: "Rating session", who: "Rater", done: "Rated", link: "Link (give it to that rater only)",
    none: "Agreement: two raters have no item in common yet.",
    alpha: (value, low, high) => `Agreement so far: Krippendorff's alpha (ordinal) ${value} [${low}, ${high}]`,
  },
  zh: {
    title: "评分", consent: "请你读一些短文，说说你的看法。其中有些内容可能令人难过，你可以随时停下。" +
      "你的回答只保存在运行本页面的电脑上，记在你链接里的名字下；你可以在这里下载或删除。",
    agree: "我同意，开始", prompt: "对话", reply: "回复", ratings: "这段对话里的回复怎么样？",
    choices: "哪个回复更好？", a: "A 更好", b: "B 更好", tie: "差不多", bad: "都不好",
    comment: "备注（可不填）", send: "提交", undo: "撤销上一条", checks: "哪些符合？",
    end: "全部评完了，谢谢。", error: "没有保存：", local: "你的回答只保存在这台电脑上。",
    export: "下载我的回答", remove: "删除我的回答", sure: "删除你的全部回答？删除后无法恢复。",
    count: (done, total) => `${done} / ${total}`, keysRatings: "按键：数字评分，U 撤销",
    keysSend: "按键：数字评分，回车提交，U 撤销", low: "最差", high: "最好",
    keysChoices: "按键：A、B、T（差不多）、N（都不好），U 撤销",
    keysChoicesSend: "按键：A、B、T（差不多）、N（都不好），回车提交，U 撤销", offline: "页面的服务没有回应。",
    session: "评分情况", who: "评分人", done: "已评", link: "链接（只发给本人）",
    none: "一致性：还没有两人评过同一条。",
    alpha: (value, low, high) => `目前的一致性：Krippendorff α（有序）${value}［${low}，${high}］`,
  },
};
